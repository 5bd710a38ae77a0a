//! How a host's kdump is set up: Debian's kdump-tools, or dracut's `/etc/kdump.conf`.

use super::host::{Host, Seen};

/// Whose way kdump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian's kdump-tools, which starts the host's own system in the capture kernel.
    Tools,
    /// dracut's kdump, which saves the dump from within its own initramfs.
    Dracut,
}

/// Where a dump goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A folder of this host.
    Folder(String),
    /// Somewhere that cannot be looked at from here: another host, a device.
    Elsewhere(String),
}

/// A set-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kdump {
    /// Whose.
    pub kind: Kind,
    /// Its file.
    pub file: &'static str,
    /// Whether it is switched off.
    pub off: bool,
    /// Where it saves.
    pub target: Target,
}

const TOOLS: &str = "/etc/default/kdump-tools";
const DRACUT: &str = "/etc/kdump.conf";
/// The default of both.
pub(super) const FOLDER: &str = "/var/crash";

impl Kdump {
    /// What is set up on this host.
    pub(super) fn read(host: &Host) -> Seen<Self> {
        host.text(TOOLS)
            .read(TOOLS, |text| Some(Self::tools(&text)))
            .or(|| host.text(DRACUT).read(DRACUT, |text| Some(Self::dracut(&text))))
    }

    /// Assignments of a shell; the last one counts.
    fn tools(text: &str) -> Self {
        let value = |name: &str| {
            let mut set = text.lines().filter_map(|l| l.trim().strip_prefix(name)?.strip_prefix('='));
            let bare = |v: &str| v.split([';', '#']).next().unwrap_or("").trim().trim_matches(['"', '\'']).to_string();
            set.next_back().map(bare).filter(|v| !v.is_empty())
        };
        let away = ["NFS", "SSH", "FTP"].into_iter().find_map(|n| Some(format!("{n}={}", value(n)?)));
        let folder = || Target::Folder(value("KDUMP_COREDIR").unwrap_or(FOLDER.into()));
        Self {
            kind: Kind::Tools,
            file: TOOLS,
            off: value("USE_KDUMP").is_none_or(|v| v == "0"),
            target: away.map_or_else(folder, Target::Elsewhere),
        }
    }

    /// Lines of a word and its value.
    fn dracut(text: &str) -> Self {
        let mut folder = FOLDER.to_string();
        let mut away = None;
        for line in text.lines() {
            let (word, value) = line.trim().split_once([' ', '\t']).unwrap_or((line, ""));
            match word {
                "path" => folder = value.trim().into(),
                "raw" | "nfs" | "ssh" | "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "minix" => {
                    away = Some(format!("{word} {}", value.trim()));
                }
                _ => {}
            }
        }
        let target = away.map_or(Target::Folder(folder), Target::Elsewhere);
        Self { kind: Kind::Dracut, file: DRACUT, off: false, target }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_tell_where_dumps_go() {
        let tools = |text| (Kdump::tools(text).off, Kdump::tools(text).target);
        let folder = |f: &str| Target::Folder(f.into());
        assert_eq!(tools("USE_KDUMP=1\nKDUMP_COREDIR=\"/var/crash\"\n#NFS=\"<nfs mount>\"\n"), (false, folder(FOLDER)));
        assert_eq!(tools("USE_KDUMP=0\n KDUMP_COREDIR=/srv/crash # big\n"), (true, folder("/srv/crash")));
        assert_eq!(tools(""), (true, folder(FOLDER)));
        assert_eq!(tools("USE_KDUMP=1\nSSH=\"root@a\"\n"), (false, Target::Elsewhere("SSH=root@a".into())));
        let dracut = |text| Kdump::dracut(text).target;
        assert_eq!(
            dracut("# path /nowhere\npath /data/crash\ncore_collector makedumpfile -l\n"),
            folder("/data/crash")
        );
        assert_eq!(dracut("path /x\nnfs server:/export\n"), Target::Elsewhere("nfs server:/export".into()));
    }
}
