//! The folders of unpacked images. Each is removed with its last user, because Fargate keeps no images between
//! tasks, and a disk would fill up.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

/// The folder of one image. It is removed from the disk when this is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held while the image is unpacked.
    pub(super) unpacking: tokio::sync::Mutex<()>,
}

/// The folders that have users, by path.
fn folders() -> MutexGuard<'static, HashMap<PathBuf, Weak<Folder>>> {
    static FOLDERS: LazyLock<Mutex<HashMap<PathBuf, Weak<Folder>>>> = LazyLock::new(Mutex::default);
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Folder {
    /// The folder at this path, with one more user.
    pub fn of(path: PathBuf) -> Arc<Folder> {
        let mut folders = folders();
        if let Some(folder) = folders.get(&path).and_then(Weak::upgrade) {
            return folder;
        }
        let folder = Arc::new(Folder {
            path: path.clone(),
            unpacking: tokio::sync::Mutex::default(),
        });
        folders.insert(path, Arc::downgrade(&folder));
        folder
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let mut folders = folders();
        let this: *const Folder = self;
        // Meanwhile another user may have come, who has what is on the disk.
        if folders
            .get(&self.path)
            .is_some_and(|newest| newest.as_ptr() == this)
        {
            folders.remove(&self.path);
            // An error means that nothing was unpacked.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
