//! The folder as the kernel sees it: whatever it asks is handed on to the threads that can answer.

use super::Event;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEntry, ReplyOpen, Request,
};
use std::ffi::{OsStr, OsString};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// How long the kernel may believe what it was told: nothing changes.
pub(super) const ALWAYS: Duration = Duration::from_secs(1 << 20);
/// The inode of the first file.
const FIRST: u64 = 2;

/// What a file can be asked.
#[derive(Debug)]
pub(super) enum Ask {
    /// For its attributes, by name.
    Entry(ReplyEntry),
    /// For its attributes.
    Attr(ReplyAttr),
    /// For bytes.
    Read { at: u64, size: u32, reply: ReplyData },
}

impl Ask {
    /// Answers that there is nothing to be had.
    pub(super) fn refuse(self) {
        match self {
            Self::Entry(reply) => reply.error(Errno::EIO),
            Self::Attr(reply) => reply.error(Errno::EIO),
            Self::Read { reply, .. } => reply.error(Errno::EIO),
        }
    }
}

/// What needs the names of the files.
#[derive(Debug)]
pub(super) enum Seek {
    /// The file of a name.
    Name(OsString, ReplyEntry),
    /// All of them, from the one of this number on.
    List(u64, ReplyDirectory),
}

/// Where questions go.
#[derive(Debug)]
pub(super) struct Desks {
    pub(super) seek: Sender<Seek>,
    pub(super) files: Vec<Sender<Ask>>,
}

/// The folder. Without desks, because it comes to its end, every answer is an error.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) desks: Arc<Mutex<Option<Desks>>>,
    pub(super) events: Sender<Event>,
    pub(super) attr: FileAttr,
}

/// The attributes of a file, or of the folder if there is no number.
pub(super) fn attr(file: Option<usize>, size: u64, made: SystemTime) -> FileAttr {
    let ino = file.map_or(INodeNo::ROOT, |n| INodeNo(FIRST + n as u64));
    let (kind, perm, nlink) = match file {
        // Only the owner may read what was a machine's memory.
        Some(_) => (FileType::RegularFile, 0o400, 1),
        None => (FileType::Directory, 0o500, 2),
    };
    FileAttr {
        ino,
        size,
        // All of it: tools that look for holes shall not find any.
        blocks: size.div_ceil(512),
        atime: made,
        mtime: made,
        ctime: made,
        crtime: made,
        kind,
        perm,
        nlink,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Folder {
    fn seek(&self, seek: Seek) {
        // A reply that nobody takes is an error by itself.
        if let Ok(desks) = self.desks.lock()
            && let Some(desks) = &*desks
        {
            let _ = desks.seek.send(seek);
        }
    }

    fn ask(&self, ino: INodeNo, ask: Ask) {
        let file = u64::from(ino).checked_sub(FIRST).and_then(|n| usize::try_from(n).ok());
        if let Ok(desks) = self.desks.lock()
            && let Some(desk) = desks.as_ref().zip(file).and_then(|(d, n)| d.files.get(n))
        {
            let _ = desk.send(ask);
        }
    }
}

impl Filesystem for Folder {
    fn destroy(&mut self) {
        let _ = self.events.send(Event::Unmounted);
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match parent {
            INodeNo::ROOT => self.seek(Seek::Name(name.into(), reply)),
            _ => reply.error(Errno::ENOTDIR),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match ino {
            INodeNo::ROOT => reply.attr(&ALWAYS, &self.attr),
            _ => self.ask(ino, Ask::Attr(reply)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.ask(ino, Ask::Read { at, size, reply });
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectory) {
        match ino {
            INodeNo::ROOT => self.seek(Seek::List(offset, reply)),
            _ => reply.error(Errno::ENOTDIR),
        }
    }
}

/// Writes the names from a number on into the kernel's list.
pub(super) fn list(names: &[String], from: u64, mut reply: ReplyDirectory) {
    let dots = [".", ".."].map(|name| (INodeNo::ROOT, FileType::Directory, name));
    let file = |(n, name)| (INodeNo(FIRST + n), FileType::RegularFile, name);
    let files = (0..).zip(names.iter().map(String::as_str)).map(file);
    for (n, (ino, kind, name)) in (0_u64..).zip(dots.into_iter().chain(files)) {
        if n >= from && reply.add(ino, n + 1, kind, name) {
            break;
        }
    }
    reply.ok();
}
