use std::fs::File;
use std::io::{Read, Seek, Write};

use super::*;

/// The file of somebody else under a number that was closed; nobody else of this process takes it, since it is high.
fn put_under(number: RawFd) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"somebody else's").unwrap();
    let other = rustix::io::fcntl_dupfd_cloexec(&file, number).unwrap();
    assert_eq!(other.as_raw_fd(), number);
    other.into()
}

/// A file with a number that no other test of this process gets.
fn high_file(number: RawFd) -> OwnedFd {
    let file = rustix::io::fcntl_dupfd_cloexec(tempfile::tempfile().unwrap(), number).unwrap();
    assert_eq!(file.as_raw_fd(), number);
    file
}

#[test]
fn a_descriptor_that_others_have_closed_is_missed_by_name_and_not_closed_again() {
    let register = Register::default();
    let kept = Kept::new(high_file(700), &register, "file open-1").unwrap();
    assert_eq!(register.look(), None);
    kept.check().unwrap();

    close_behind_its_back(700);

    let lost = kept.check().unwrap_err();
    assert_eq!(lost.to_string(), "descriptor 700 (file open-1) was closed by others");
    assert_eq!(register.look(), Some(lost));
    let mut theirs = put_under(700);
    let taken = kept.check().unwrap_err();
    assert_eq!(
        taken.to_string(),
        "descriptor 700 (file open-1) was closed by others; it is another file by now"
    );
    assert_eq!(lost_in(&io::Error::from(taken.clone())), Some(&taken));
    drop(kept);

    let mut text = String::new();
    theirs.rewind().unwrap();
    theirs.read_to_string(&mut text).unwrap();
    assert_eq!(text, "somebody else's", "it is open, and as it was");
    assert!(register.lock().known.is_empty());
    assert!(register.lost().is_some(), "what was lost stays the reason");
}

#[test]
fn a_descriptor_that_the_node_closes_is_not_missed() {
    let register = Register::default();
    let kept = Kept::new(tempfile::tempfile().unwrap(), &register, "a file").unwrap();
    drop(kept);
    assert_eq!(register.look(), None);
}

#[test]
fn one_with_a_spare_is_put_back_if_its_number_is_free_and_never_over_others() {
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let event = rustix::io::fcntl_dupfd_cloexec(event, 720).unwrap();
    let number = event.as_raw_fd();
    std::mem::forget(event);
    let register = Register::default();
    let ticket = register.enter_with_spare(number, "eventfd of a runtime").unwrap();
    assert_eq!(register.look(), None);

    close_behind_its_back(number);
    assert_eq!(register.look().map(|lost| lost.taken), Some(false));
    ticket.check().unwrap();

    // Another of the same kind has the same inode, and no mark.
    close_behind_its_back(number);
    let theirs = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let theirs = rustix::io::fcntl_dupfd_cloexec(theirs, number).unwrap();
    assert_eq!(theirs.as_raw_fd(), number);
    assert!(ticket.check().unwrap_err().taken);
    register.look();
    drop(ticket);
    rustix::io::write(&theirs, &[1_u8; 8]).unwrap();
}

#[test]
fn a_spare_that_others_have_closed_is_not_missed_and_what_has_its_number_is_not_closed() {
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let register = Register::default();
    let ticket = register.enter_with_spare(event.as_raw_fd(), "eventfd of a runtime").unwrap();
    let spare = ticket.known.spare.as_ref().unwrap().as_raw_fd();

    let theirs = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    // As if it had been closed, and the number given again.
    put_in_place(&theirs, spare);
    drop(theirs);

    ticket.check().unwrap();
    assert_eq!(register.look(), None);
    drop(ticket);
    assert!(Identity::of(spare).is_ok(), "it is open");
    close_behind_its_back(spare);
}

#[test]
fn what_fails_while_it_becomes_something_else_is_closed_by_the_node_and_not_missed() {
    let register = Register::default();
    let kept = Kept::new(high_file(720), &register, "a connection").unwrap();

    let failed = kept.try_map(|file| -> io::Result<OwnedFd> {
        drop(file);
        assert_eq!(register.look(), None);
        Err(io::ErrorKind::OutOfMemory.into())
    });

    assert!(failed.is_err());
    assert_eq!(register.look(), None);
    let kept = Kept::new(high_file(721), &register, "a connection").unwrap().try_map(Ok).unwrap();
    close_behind_its_back(721);
    assert!(register.look().is_some(), "it is watched again");
    drop(kept);
}
