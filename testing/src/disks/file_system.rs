//! File systems of every kind that this machine has, each made anew, with a folder for the data of one node.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::space;
use super::volume::run;

/// Folder of the data.
const DATA: &str = "data";
/// Most that one in memory takes.
const MEMORY_OPTIONS: &str = "size=256m";
/// Bytes of a file system in a file, whose space is taken when it is written to.
const IMAGE_BYTES: u64 = 256 << 20;
/// mkfs.xfs makes none that is smaller.
const XFS_BYTES: u64 = 300 << 20;

/// A kind of file system.
#[derive(Clone, Copy, Debug)]
pub struct FileSystem {
    /// As tables name it.
    pub name: &'static str,
    /// Whether disk mode is worth a try, too: what it needs depends on the driver, not on options.
    pub is_of_own_driver: bool,
    recipe: Recipe,
}

/// How it is made.
#[derive(Clone, Copy, Debug)]
enum Recipe {
    /// In a file.
    Image(Image),
    /// The same, and the folder is a subvolume of it.
    Subvolume,
    /// tmpfs.
    Memory,
    /// One laid over another.
    Overlay { directory: Below, upper: Upper, options: &'static str },
    /// The same by fuse-overlayfs, as containers without root have it.
    FuseOverlay,
    /// A folder of another one by bindfs: FUSE.
    Bind,
    /// ext4 by fuse2fs: FUSE.
    FuseImage,
}

/// What is in a file.
#[derive(Clone, Copy, Debug)]
struct Image {
    /// As `mount` names it.
    kind: &'static str,
    tool: &'static str,
    arguments: &'static [&'static str],
    /// Of the mount.
    options: &'static str,
    bytes: u64,
}

/// Whether the folder is there before something is laid over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Below {
    /// A node has used it: its files are copied up when they are changed.
    Used,
    /// It is made above.
    Missing,
}

/// What takes the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upper {
    /// The file system that holds what is below.
    Same,
    /// Another one.
    Memory,
}

const EXT4: Image =
    Image { kind: "ext4", tool: "mkfs.ext4", arguments: &["-q", "-F"], options: "loop", bytes: IMAGE_BYTES };
const XFS: Image =
    Image { kind: "xfs", tool: "mkfs.xfs", arguments: &["-q"], options: "loop", bytes: XFS_BYTES };
const BTRFS: Image =
    Image { kind: "btrfs", tool: "mkfs.btrfs", arguments: &["-q"], options: "loop", bytes: IMAGE_BYTES };

const fn ext(kind: &'static str, arguments: &'static [&'static str], options: &'static str) -> Recipe {
    Recipe::Image(Image { kind, tool: "mkfs.ext4", arguments, options, bytes: IMAGE_BYTES })
}

const fn overlay(directory: Below, upper: Upper, options: &'static str) -> Recipe {
    Recipe::Overlay { directory, upper, options }
}

const fn driver(name: &'static str, recipe: Recipe) -> FileSystem {
    FileSystem { name, is_of_own_driver: true, recipe }
}

const fn variant(name: &'static str, recipe: Recipe) -> FileSystem {
    FileSystem { name, is_of_own_driver: false, recipe }
}

/// Every kind.
pub const ALL: [FileSystem; 17] = [
    variant("ext2", ext("ext2", &["-q", "-F", "-t", "ext2"], "loop")),
    variant("ext3", ext("ext3", &["-q", "-F", "-t", "ext3"], "loop")),
    driver("ext4", Recipe::Image(EXT4)),
    variant("ext4 without extents", ext("ext4", &["-q", "-F", "-O", "^extent,^64bit"], "loop")),
    variant("ext4, data=journal", ext("ext4", &["-q", "-F"], "loop,data=journal")),
    variant("ext4, blocks of 1 KiB", ext("ext4", &["-q", "-F", "-b", "1024"], "loop")),
    driver("xfs", Recipe::Image(XFS)),
    driver("btrfs", Recipe::Image(BTRFS)),
    variant("btrfs, a subvolume", Recipe::Subvolume),
    driver("tmpfs", Recipe::Memory),
    variant("overlay, made above", overlay(Below::Missing, Upper::Same, "")),
    driver("overlay, copied up", overlay(Below::Used, Upper::Same, "")),
    variant(
        "overlay with redirects",
        overlay(Below::Used, Upper::Same, ",redirect_dir=on,metacopy=on,index=on"),
    ),
    variant("overlay of two", overlay(Below::Used, Upper::Memory, ",xino=off")),
    driver("fuse-overlayfs", Recipe::FuseOverlay),
    driver("bindfs", Recipe::Bind),
    driver("fuse2fs", Recipe::FuseImage),
];

impl Recipe {
    fn image(self) -> Option<Image> {
        match self {
            Recipe::Image(image) => Some(image),
            Recipe::Subvolume => Some(BTRFS),
            Recipe::Overlay { .. } | Recipe::FuseOverlay | Recipe::Bind | Recipe::FuseImage => Some(EXT4),
            Recipe::Memory => None,
        }
    }

    /// What the kernel must have beside the kind of the image.
    fn kind(self) -> Option<&'static str> {
        match self {
            Recipe::Overlay { .. } => Some("overlay"),
            Recipe::Memory => Some("tmpfs"),
            Recipe::FuseOverlay | Recipe::Bind | Recipe::FuseImage => Some("fuse"),
            Recipe::Image(_) | Recipe::Subvolume => None,
        }
    }

    /// The program that is needed beside that which makes the image.
    fn tool(self) -> Option<&'static str> {
        match self {
            Recipe::Subvolume => Some("btrfs"),
            Recipe::FuseOverlay => Some("fuse-overlayfs"),
            Recipe::Bind => Some("bindfs"),
            Recipe::FuseImage => Some("fuse2fs"),
            Recipe::Image(_) | Recipe::Memory | Recipe::Overlay { .. } => None,
        }
    }
}

impl FileSystem {
    /// Whether it is of FUSE, which tells of a file what it saw a second ago, and keeps removed files that are open.
    #[must_use]
    pub fn is_fuse(&self) -> bool {
        self.recipe.kind() == Some("fuse")
    }

    /// Why it cannot be had here, if so.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let has_kind =
            |kind: &str| known.lines().any(|line| line.split_whitespace().next_back() == Some(kind));
        let image = self.recipe.image();
        let mut kinds = self.recipe.kind().into_iter().chain(image.map(|image| image.kind));
        if let Some(kind) = kinds.find(|kind| !has_kind(kind)) {
            return Some(format!("the kernel has no {kind}"));
        }
        let mut tools = self.recipe.tool().into_iter().chain(image.map(|image| image.tool));
        tools.find(|tool| !space::has(tool)).map(|tool| format!("there is no {tool}"))
    }

    /// Makes it in `folder`, which is there and empty. Where something is laid over a folder that a node has used, `fill` uses it.
    ///
    /// # Errors
    /// It cannot be made or mounted.
    pub fn mount(&self, folder: &Path, fill: impl FnOnce(&Path)) -> io::Result<Mounted> {
        let mut mounted =
            Mounted { data: PathBuf::new(), mounts: Vec::new(), image: None, is_subvolume: false };
        let (base, merged) = (folder.join("base"), folder.join("merged"));
        match (self.recipe, self.recipe.image()) {
            (Recipe::FuseImage, Some(image)) => {
                let path = mounted.make_image(image, folder)?;
                mounted.add(Command::new("fuse2fs").args(["-o", "fakeroot"]).arg(path), &base)?;
            }
            (_, Some(image)) => {
                let path = mounted.make_image(image, folder)?;
                mounted.add(mount(image.kind, image.options).arg(path), &base)?;
            }
            (_, None) => mounted.add(mount("tmpfs", MEMORY_OPTIONS).arg("none"), &base)?,
        }
        mounted.data = base.join(DATA);
        match self.recipe {
            Recipe::Image(_) | Recipe::Memory | Recipe::FuseImage => std::fs::create_dir(&mounted.data)?,
            Recipe::Subvolume => {
                run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(&mounted.data))?;
                mounted.is_subvolume = true;
            }
            Recipe::Bind => {
                std::fs::create_dir(&mounted.data)?;
                mounted.add(Command::new("bindfs").arg(&base), &merged)?;
                mounted.data = merged.join(DATA);
            }
            Recipe::Overlay { directory, upper, options } => {
                let above = match upper {
                    Upper::Same => base.clone(),
                    Upper::Memory => folder.join("above"),
                };
                if upper == Upper::Memory {
                    mounted.add(mount("tmpfs", MEMORY_OPTIONS).arg("none"), &above)?;
                }
                let layers = layers(&base, &above, (directory == Below::Used).then_some(fill))? + options;
                mounted.add(mount("overlay", &layers).arg("overlay"), &merged)?;
                mounted.data = merged.join(DATA);
                if directory == Below::Missing {
                    std::fs::create_dir(&mounted.data)?;
                }
            }
            Recipe::FuseOverlay => {
                let layers = layers(&base, &base, Some(fill))?;
                mounted.add(Command::new("fuse-overlayfs").args(["-o", &layers]), &merged)?;
                mounted.data = merged.join(DATA);
            }
        }
        Ok(mounted)
    }
}

fn mount(kind: &str, options: &str) -> Command {
    let mut command = Command::new("mount");
    command.args(["-t", kind, "-o", options]);
    command
}

/// Makes the layers of an overlay, the data in the lower one if something fills it; their names as options.
fn layers(lower: &Path, above: &Path, fill: Option<impl FnOnce(&Path)>) -> io::Result<String> {
    let (lower, upper, work) = (lower.join("lower"), above.join("upper"), above.join("work"));
    for layer in [&lower, &upper, &work] {
        std::fs::create_dir(layer)?;
    }
    if let Some(fill) = fill {
        std::fs::create_dir(lower.join(DATA))?;
        fill(&lower.join(DATA));
    }
    Ok(format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display()))
}

/// A mounted file system; gone when dropped.
#[derive(Debug)]
pub struct Mounted {
    data: PathBuf,
    mounts: Vec<PathBuf>,
    image: Option<PathBuf>,
    is_subvolume: bool,
}

impl Mounted {
    /// The folder for the data.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Removes the folder of the data, by the name that it has, with all that is in it.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, data: &Path) -> io::Result<()> {
        if self.is_subvolume {
            return run(Command::new("btrfs").args(["-q", "subvolume", "delete"]).arg(data));
        }
        std::fs::remove_dir_all(data)
    }

    /// Nobody may write to it any more.
    ///
    /// # Errors
    /// Somebody has a file of it open to write to it; the system's.
    pub fn make_read_only(&self) -> io::Result<()> {
        self.remount("remount,ro")
    }

    /// It may be written to again.
    ///
    /// # Errors
    /// The system's.
    pub fn make_writable(&self) -> io::Result<()> {
        self.remount("remount,rw")
    }

    fn remount(&self, options: &str) -> io::Result<()> {
        let Some(mount) = self.mounts.last() else { return Ok(()) };
        run(Command::new("mount").args(["-o", options]).arg(mount))
    }

    fn make_image(&mut self, image: Image, folder: &Path) -> io::Result<PathBuf> {
        let path = folder.join("image");
        self.image = Some(path.clone());
        File::create_new(&path)?.set_len(image.bytes)?;
        run(Command::new(image.tool).args(image.arguments).arg(&path))?;
        Ok(path)
    }

    /// Mounts something with a command, which gets the place as its last argument.
    fn add(&mut self, command: &mut Command, place: &Path) -> io::Result<()> {
        std::fs::create_dir(place)?;
        run(command.arg(place))?;
        self.mounts.push(place.to_owned());
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for mount in self.mounts.iter().rev() {
            // It goes with the namespace at the latest.
            let _ = Command::new("umount").arg("--lazy").arg(mount).status();
        }
        if let Some(image) = &self.image {
            let _ = std::fs::remove_file(image);
        }
    }
}
