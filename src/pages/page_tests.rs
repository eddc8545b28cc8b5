use super::*;

#[test]
fn pages_of_a_payload_and_of_its_database_are_one_copy() {
    let space = PageSpace::memory();
    let stored = Chunk::Stored(space.payloads().store(&[5; PAGE_SIZE]).unwrap());

    let first = space.page_of(PageNumber(1), &stored).unwrap();
    let page = space.page_of(PageNumber(9), &stored).unwrap();
    let again = space.page_of(PageNumber(9), &page.chunk()).unwrap();

    assert_eq!(space.arena().usage().0, 1);
    assert!(page.is_same(&first) && page.is_same(&again));
    let bytes = page.chunk().cached().unwrap();
    assert!(
        page.with(|page| std::ptr::eq(page.as_ptr(), bytes.as_ptr())).unwrap(),
        "bytes are not copied either"
    );
    drop((stored, first, again, bytes));
    assert_eq!(space.arena().usage().0, 1);
    drop(page);
    assert_eq!(space.arena().usage().0, 0);
}

#[test]
fn a_page_of_another_space_or_in_a_buffer_is_copied() {
    let (space, other) = (PageSpace::memory(), PageSpace::memory());
    let buffer = bytes::Bytes::from(vec![3; 2 * PAGE_SIZE]);

    let page = space.page_of(PageNumber(2), &Chunk::Memory(buffer.slice(PAGE_SIZE..))).unwrap();
    assert!(buffer.is_unique(), "the buffer is kept by a page");
    let copy = other.page_of(PageNumber(2), &Chunk::Memory(page.chunk().read().unwrap())).unwrap();

    assert_eq!(page, copy);
    assert_eq!((space.arena().usage().0, other.arena().usage().0), (1, 1));
}

#[test]
fn a_page_among_others_can_be_read_where_it_lies_and_a_bit_further() {
    let space = PageSpace::memory();
    let page = space.page(PageNumber(2), &[5; PAGE_SIZE]).unwrap();

    assert_eq!(page.in_place(256), page.with(|bytes| Some(bytes.as_ptr())).unwrap());
    assert_eq!(page.in_place(PAGE_SIZE + 1), None);
    assert_eq!(PageRef::new(&[5; PAGE_SIZE]).in_place(256), None);
}
