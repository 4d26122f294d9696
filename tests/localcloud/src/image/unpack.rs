//! Applies one layer of an image to a folder.
//!
//! A layer may come from anyone who can push. Therefore nothing outside the folder is read or written:
//! paths are resolved as if the folder were `/`, as `chroot` does.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/layer.md>

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};

/// The limit on symbolic links in one path, as in Linux. More links count as a loop.
const MAX_LINKS: u32 = 40;

/// The prefix of a whiteout, which removes the name after it from the layers below.
const WHITEOUT: &[u8] = b".wh.";

/// The name of an opaque whiteout, which removes everything in its folder from the layers below.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Applies the layer in the file `layer` to the folder `root`. The file is a tar archive, plain or
/// compressed with gzip or Zstandard.
pub fn layer(layer: &Path, root: &Path) -> io::Result<()> {
    // Whiteouts apply to the layers below, wherever they are in the archive, so they come first.
    for_each(layer, |path, _| remove_hidden(root, path))?;
    for_each(layer, |path, entry| put(root, path, entry))
}

fn for_each(
    layer: &Path,
    mut visit: impl FnMut(&[OsString], &mut Entry<'_, Box<dyn Read>>) -> io::Result<()>,
) -> io::Result<()> {
    let mut archive = Archive::new(decompressed(layer)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = names(&entry.path()?)?;
        visit(&path, &mut entry)?;
    }
    Ok(())
}

/// The tar archive in the file. The first bytes show how it is compressed, because media types can be
/// wrong.
fn decompressed(layer: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(layer)?;
    let mut magic = [0; 4];
    let mut read = 0;
    while read < magic.len() {
        match file.read(&mut magic[read..])? {
            0 => break,
            length => read += length,
        }
    }
    file.rewind()?;
    let file = BufReader::new(file);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(
            ruzstd::decoding::StreamingDecoder::new(file).map_err(|e| invalid(e.to_string()))?,
        ),
        _ => Box::new(file),
    })
}

/// The names that a path in a layer consists of.
fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_os_string()),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(invalid(format!(
                    "{} is outside of the image",
                    path.display()
                )));
            }
        }
    }
    Ok(names)
}

fn remove_hidden(root: &Path, path: &[OsString]) -> io::Result<()> {
    let Some((name, parents)) = path.split_last() else {
        return Ok(());
    };
    let name = name.as_bytes();
    if !name.starts_with(WHITEOUT) {
        return Ok(());
    }
    let Some(folder) = resolve(root, parents, Missing::None)? else {
        return Ok(());
    };
    if name == OPAQUE {
        for entry in fs::read_dir(folder)? {
            remove(&entry?.path())?;
        }
        return Ok(());
    }
    match &name[WHITEOUT.len()..] {
        b"" | b"." | b".." => Err(invalid("a whiteout of nothing")),
        name => remove(&folder.join(OsStr::from_bytes(name))),
    }
}

fn put(root: &Path, path: &[OsString], entry: &mut Entry<'_, Box<dyn Read>>) -> io::Result<()> {
    let Some((name, parents)) = path.split_last() else {
        return Ok(());
    };
    if name.as_bytes().starts_with(WHITEOUT) {
        return Ok(());
    }
    let Some(folder) = resolve(root, parents, Missing::Create)? else {
        return Err(invalid("a new folder is missing"));
    };
    let place = folder.join(name);
    // Set-user-id bits are dropped, because the files belong to the user who runs the local cloud.
    let mode = entry.header().mode()? & 0o777;
    match entry.header().entry_type() {
        EntryType::Directory => {
            if !is_folder(&place)? {
                remove(&place)?;
                fs::create_dir(&place)?;
            }
            // The owner keeps access. Otherwise the layers above could only be applied by root.
            fs::set_permissions(&place, Permissions::from_mode(mode | 0o700))
        }
        EntryType::Regular | EntryType::Continuous => {
            remove(&place)?;
            let mut file = File::create_new(&place)?;
            io::copy(entry, &mut file)?;
            file.set_permissions(Permissions::from_mode(mode | 0o600))
        }
        EntryType::Symlink => {
            remove(&place)?;
            symlink(link_name(entry)?, &place)
        }
        EntryType::Link => {
            let target = names(&link_name(entry)?)?;
            let Some((name, parents)) = target.split_last() else {
                return Err(invalid("a hard link to /"));
            };
            let folder = resolve(root, parents, Missing::None)?
                .ok_or_else(|| invalid("a hard link to a missing file"))?;
            let target = folder.join(name);
            if target == place {
                return Ok(());
            }
            remove(&place)?;
            fs::hard_link(target, &place)
        }
        // Devices and pipes are skipped. Images for Fargate do not need them, and only root can make
        // them.
        _ => Ok(()),
    }
}

fn link_name(entry: &Entry<'_, Box<dyn Read>>) -> io::Result<PathBuf> {
    let name = entry.link_name()?;
    Ok(name
        .ok_or_else(|| invalid("a link without a target"))?
        .into_owned())
}

/// What `resolve` does about a missing folder.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    Create,
    None,
}

/// The folder that `path` leads to in the image. Symbolic links are followed as if `root` were `/`.
fn resolve(root: &Path, path: &[OsString], missing: Missing) -> io::Result<Option<PathBuf>> {
    let mut ahead: Vec<OsString> = path.iter().rev().cloned().collect();
    let mut inside: Vec<OsString> = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            inside.pop();
            continue;
        }
        inside.push(name);
        let place: PathBuf = [root.as_os_str()]
            .into_iter()
            .chain(inside.iter().map(OsString::as_os_str))
            .collect();
        match fs::symlink_metadata(&place) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(metadata) if metadata.is_symlink() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(invalid("too many levels of symbolic links"));
                }
                let target = fs::read_link(&place)?;
                inside.pop();
                for component in target.components().rev() {
                    match component {
                        Component::Normal(name) => ahead.push(name.to_os_string()),
                        Component::ParentDir => ahead.push("..".into()),
                        Component::RootDir => inside.clear(),
                        Component::CurDir | Component::Prefix(_) => {}
                    }
                }
            }
            Ok(_) if missing == Missing::Create => {
                fs::remove_file(&place)?;
                fs::create_dir(&place)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => match missing {
                Missing::Create => fs::create_dir(&place)?,
                Missing::None => return Ok(None),
            },
            Ok(_) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(
        [root.as_os_str()]
            .into_iter()
            .chain(inside.iter().map(OsString::as_os_str))
            .collect(),
    ))
}

fn is_folder(place: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(place) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the file or folder at `place`, if there is one. A symbolic link is not followed.
fn remove(place: &Path) -> io::Result<()> {
    let removed = if is_folder(place)? {
        fs::remove_dir_all(place)
    } else {
        fs::remove_file(place)
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Appends an entry. Its name is written unchanged, even if it is invalid.
    fn entry(tar: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, data: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.as_old_mut().linkname[..data.len()].copy_from_slice(data.as_bytes());
        }
        let data = if is_link { "" } else { data };
        header.set_size(data.len() as u64);
        header.set_cksum();
        tar.append(&header, data.as_bytes()).unwrap();
    }

    fn tar_of(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (kind, path, data) in entries {
            entry(&mut tar, *kind, path, data);
        }
        tar.into_inner().unwrap()
    }

    struct Image {
        folder: tempfile::TempDir,
    }

    impl Image {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("root")).unwrap();
            fs::write(folder.path().join("outside"), "untouched").unwrap();
            Image { folder }
        }

        fn apply_bytes(&self, bytes: &[u8]) -> io::Result<()> {
            let file = self.folder.path().join("layer");
            fs::write(&file, bytes).unwrap();
            layer(&file, &self.folder.path().join("root"))
        }

        fn apply(&self, entries: &[(EntryType, &str, &str)]) -> io::Result<()> {
            self.apply_bytes(&tar_of(entries))
        }

        fn read(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.folder.path().join("root").join(path)).ok()
        }

        fn outside(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(
                fs::read_to_string(self.folder.path().join("outside")).unwrap(),
                "untouched"
            );
            names
        }
    }

    use EntryType::{Directory, Link, Regular, Symlink};

    #[test]
    fn files_folders_links_and_modes_are_unpacked() {
        let image = Image::new();
        image
            .apply(&[
                (Directory, "usr/", ""),
                (Regular, "usr/bin/app", "program"),
                (Symlink, "bin", "usr/bin"),
                (Regular, "bin/other", "through the link"),
                (Link, "hard", "bin/app"),
            ])
            .unwrap();
        assert_eq!(image.read("usr/bin/app").unwrap(), "program");
        assert_eq!(image.read("usr/bin/other").unwrap(), "through the link");
        assert_eq!(image.read("hard").unwrap(), "program");
        let app = image.folder.path().join("root/usr/bin/app");
        assert_eq!(
            fs::metadata(app).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }

    #[test]
    fn a_layer_may_be_plain_or_compressed_with_gzip_or_zstandard() {
        let plain = tar_of(&[(Regular, "a", "text")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(
            plain.as_slice(),
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        for packed in [plain.clone(), gzip.finish().unwrap(), zstd] {
            let image = Image::new();
            image.apply_bytes(&packed).unwrap();
            assert_eq!(image.read("a").unwrap(), "text");
        }
    }

    #[test]
    fn whiteouts_remove_files_of_lower_layers_and_none_of_their_own() {
        let image = Image::new();
        image
            .apply(&[
                (Regular, "removed", "1"),
                (Regular, "kept", "2"),
                (Regular, "folder/old", "3"),
                (Regular, "folder/deep/old", "4"),
            ])
            .unwrap();
        image
            .apply(&[
                (Regular, "folder/new", "5"),
                (Regular, "folder/.wh..wh..opq", ""),
                (Regular, ".wh.removed", ""),
                (Regular, "nowhere/.wh.nothing", ""),
            ])
            .unwrap();
        assert_eq!(image.read("removed"), None);
        assert_eq!(image.read("kept").unwrap(), "2");
        assert_eq!(image.read("folder/old"), None);
        assert_eq!(image.read("folder/deep/old"), None);
        assert_eq!(image.read("folder/new").unwrap(), "5");
        assert_eq!(image.read(".wh.removed"), None);
    }

    #[test]
    fn a_higher_layer_may_replace_a_file_by_a_folder_and_a_folder_by_a_file() {
        let image = Image::new();
        image
            .apply(&[(Regular, "a", "file"), (Regular, "b/c", "file")])
            .unwrap();
        image
            .apply(&[(Regular, "a/b", "inner"), (Regular, "b", "now a file")])
            .unwrap();
        assert_eq!(image.read("a/b").unwrap(), "inner");
        assert_eq!(image.read("b").unwrap(), "now a file");
    }

    #[test]
    fn no_entry_reads_or_writes_outside_of_the_image() {
        let before = ["layer", "outside", "root"];
        for entries in [
            vec![(Regular, "../escaped", "x")],
            vec![(Regular, "a/../../escaped", "x")],
            vec![(Directory, "../escaped", "")],
            vec![(Link, "hard", "../outside")],
            vec![(Regular, "../.wh.outside", "")],
        ] {
            let image = Image::new();
            assert!(image.apply(&entries).is_err(), "{entries:?}");
            assert_eq!(image.outside(), before);
        }
        // Links that point outside resolve to inside, as they do for a process in the image.
        let image = Image::new();
        image
            .apply(&[
                (Symlink, "up", "../.."),
                (Regular, "up/outside", "inside 1"),
                (Symlink, "absolute", "/etc"),
                (Regular, "absolute/passwd", "inside 2"),
                (Symlink, "file", "../outside"),
                (Regular, "file", "inside 3"),
                (Regular, "/rooted", "inside 4"),
                (Regular, "up/.wh.outside", ""),
            ])
            .unwrap();
        assert_eq!(image.outside(), before);
        assert_eq!(image.read("outside").unwrap(), "inside 1");
        assert_eq!(image.read("etc/passwd").unwrap(), "inside 2");
        assert_eq!(image.read("file").unwrap(), "inside 3");
        assert_eq!(image.read("rooted").unwrap(), "inside 4");

        let image = Image::new();
        let around = [
            (Symlink, "a", "b"),
            (Symlink, "b", "a"),
            (Regular, "a/x", ""),
        ];
        assert!(image.apply(&around).is_err());
    }
}
