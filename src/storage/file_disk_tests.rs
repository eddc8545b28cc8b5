use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::host::register::{close_behind_its_back, lost_in};

fn directory(path: &Path) -> Arc<dyn DiskDirectory> {
    FileDisk.open_directory(path).unwrap()
}

#[test]
fn allocated_space_reads_as_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = directory(folder.path()).open("file", OpenMode::CreateExclusive).unwrap();

    if file.allocate(10_000).unwrap() {
        assert_eq!(std::fs::read(folder.path().join("file")).unwrap(), [0; 10_000]);
    }
}

#[test]
fn more_slices_than_one_call_takes_are_written_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = directory(folder.path()).open("file", OpenMode::CreateExclusive).unwrap();
    let pieces: Vec<Vec<u8>> = (0..SLICES_MAX * 2 + 7).map(|piece| vec![piece as u8; piece % 3]).collect();
    let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();

    file.write_vectored_at(&slices, 5).unwrap();

    assert_eq!(std::fs::read(folder.path().join("file")).unwrap()[5..], pieces.concat());
}

#[test]
fn a_lock_is_exclusive_until_dropped_and_names_its_holder() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());

    let Locking::Held(held) = directory.lock("dqlite-lock").unwrap() else { panic!("nobody has it") };
    match directory.lock("dqlite-lock").unwrap() {
        Locking::Taken { by } => assert_eq!(by.as_deref(), Some("this process")),
        Locking::Held(_) => panic!("locked twice"),
    }
    drop(held);
    assert!(matches!(directory.lock("dqlite-lock").unwrap(), Locking::Held(_)));
    let permissions = std::fs::metadata(folder.path().join("dqlite-lock")).unwrap().permissions();
    assert_eq!(permissions.mode() & 0o777, 0o600);
}

#[test]
fn slices_are_written_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut file = directory.open("file", OpenMode::CreateExclusive).unwrap();
    let again = directory.open("file", OpenMode::CreateExclusive).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);

    file.write_vectored_at(&[IoSlice::new(b"ab"), IoSlice::new(b"cde")], 3).unwrap();

    let mut buffer = [9; 10];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 8);
    assert_eq!(&buffer[..8], b"\0\0\0abcde");
    assert_eq!(file.len().unwrap(), 8);
}

#[test]
fn a_directory_is_the_same_one_after_a_rename_and_says_that_it_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    std::fs::create_dir(&first).unwrap();
    let directory = directory(&first);

    std::fs::rename(&first, &second).unwrap();
    std::fs::create_dir(&first).unwrap();
    directory.open("file", OpenMode::CreateExclusive).unwrap();

    assert!(second.join("file").exists() && !first.join("file").exists());
    assert!(!directory.status().unwrap().is_removed);
    directory.remove("file").unwrap();
    std::fs::remove_dir(&second).unwrap();
    assert!(directory.status().unwrap().is_removed);
    assert_eq!(directory.open("file", OpenMode::CreateWrite).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_symbolic_link_is_no_file_and_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("target"), b"content").unwrap();
    std::os::unix::fs::symlink("target", folder.path().join("link")).unwrap();
    let directory = directory(folder.path());

    let listed: Vec<(String, bool)> =
        directory.list().unwrap().into_iter().map(|entry| (entry.name, entry.stat.is_file)).collect();

    assert!(listed.contains(&("link".to_owned(), false)) && listed.contains(&("target".to_owned(), true)));
    assert!(directory.open("link", OpenMode::Write).is_err());
    assert!(directory.open("link", OpenMode::CreateWrite).is_err());
}

#[test]
fn a_file_without_a_name_is_not_listed_and_gets_only_a_name_that_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let Some(mut file) = directory.create_unnamed().unwrap() else { return };
    file.write_vectored_at(&[IoSlice::new(b"content")], 0).unwrap();
    std::fs::write(folder.path().join("taken"), b"other").unwrap();
    assert_eq!(directory.list().unwrap().len(), 1);

    assert_eq!(file.link("taken").unwrap_err().kind(), ErrorKind::AlreadyExists);
    file.link("free").unwrap();

    assert_eq!(std::fs::read(folder.path().join("free")).unwrap(), b"content");
    assert_eq!(std::fs::read(folder.path().join("taken")).unwrap(), b"other");
    assert!(directory.open("free", OpenMode::Write).unwrap().link("more").is_err());
}

#[test]
fn a_scratch_file_leaves_no_name() {
    let folder = tempfile::tempdir().unwrap();

    let file = directory(folder.path()).create_scratch().unwrap();

    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    file.write_all_at(b"abc", 10).unwrap();
    let mut read = [9; 4];
    file.read_exact_at(&mut read, 9).unwrap();
    assert_eq!(read, *b"\0abc");
    assert!(file.free_bytes().unwrap() > 0);
    // Some file systems cannot.
    if file.punch(10, 2).is_ok() {
        file.read_exact_at(&mut read, 9).unwrap();
        assert_eq!(read, *b"\0\0\0c");
    }
    file.set_len(11).unwrap();
    assert_eq!(file.read_exact_at(&mut read, 9).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

/// The number under which a file of a directory is open.
fn number_of(folder: &Path, name: &str) -> i32 {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let is_file =
        |entry: &std::fs::DirEntry| std::fs::read_link(entry.path()).is_ok_and(|to| to == folder.join(name));
    let mut found = entries.filter(is_file);
    found.next().unwrap().file_name().to_str().unwrap().parse().unwrap()
}

#[test]
fn a_lock_whose_descriptor_others_have_closed_is_held_until_it_is_dropped_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let Locking::Held(held) = directory.lock("dqlite-lock").unwrap() else { panic!("nobody has it") };
    held.check().unwrap();

    close_behind_its_back(number_of(folder.path(), "dqlite-lock"));

    let lost = held.check().unwrap_err();
    assert!(lost_in(&lost).unwrap().to_string().contains("(dqlite-lock) was closed by others"), "{lost}");
    assert!(matches!(directory.lock("dqlite-lock").unwrap(), Locking::Taken { .. }), "it was given away");
    drop(held);
    assert!(matches!(directory.lock("dqlite-lock").unwrap(), Locking::Held(_)));
}

#[test]
fn a_file_whose_descriptor_others_have_closed_is_neither_written_nor_synced() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut file = directory.open("open-1", OpenMode::CreateExclusive).unwrap();
    file.write_vectored_at(&[IoSlice::new(b"ours")], 0).unwrap();

    close_behind_its_back(number_of(folder.path(), "open-1"));

    let is_lost = |result: io::Result<()>| lost_in(&result.unwrap_err()).is_some();
    assert!(is_lost(file.write_vectored_at(&[IoSlice::new(b"lost")], 0)));
    assert!(is_lost(file.sync_data()) && is_lost(file.set_len(1)) && is_lost(file.duplicate().map(drop)));
    assert_eq!(std::fs::read(folder.path().join("open-1")).unwrap(), b"ours");
    assert_eq!(directory.descriptors().lost().unwrap().what.as_ref(), "file open-1");
}

#[test]
fn when_the_way_to_give_names_is_gone_another_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let register = Register::default();
    let handle = Kept::new(OwnedFd::from(File::open(folder.path()).unwrap()), &register, "here").unwrap();
    let disk = OpenDirectory { handle: Arc::new(handle), register, naming: Arc::default() };
    let Some(mut first) = disk.create_unnamed().unwrap() else { return };
    disk.naming.set(Some(Naming::Never));

    first.link("open-1").unwrap();

    assert!(folder.path().join("open-1").exists());
}

#[test]
fn what_is_no_regular_file_is_neither_waited_for_nor_read() {
    let folder = tempfile::tempdir().unwrap();
    rustix::fs::mknodat(CWD, folder.path().join("open-1"), FileType::Fifo, FILE_MODE, 0).unwrap();
    let disk = directory(folder.path());

    for mode in [OpenMode::Read, OpenMode::Write, OpenMode::CreateWrite] {
        assert_eq!(disk.open("open-1", mode).unwrap_err().to_string(), "it is no regular file");
    }
}

#[test]
fn a_removed_directory_has_no_list_and_an_empty_one_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    std::fs::create_dir(&path).unwrap();
    let register = Register::default();
    let handle = Kept::new(OwnedFd::from(File::open(&path).unwrap()), &register, "it").unwrap();
    let directory = OpenDirectory { handle: Arc::new(handle), register, naming: Arc::default() };

    assert!(!directory.is_dead());
    std::fs::remove_dir(&path).unwrap();
    assert!(directory.is_dead());
}
