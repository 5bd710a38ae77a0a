//! A writer of what `xl dump-core` writes, from Xen's docs/misc/dump-core-format.txt, and as files of Xen 4.20
//! have it.

use super::dump::{PAGE, Page};

/// A domain to write.
pub(crate) struct Domain {
    /// PFN, MFN and content of each page.
    pub(crate) pages: Vec<(u64, u64, Page)>,
    /// Registers as `cpu_user_regs` begins (21 words), and the MFN (PFN of a translated domain) of the root table.
    pub(crate) vcpus: Vec<([u64; 21], u64)>,
    pub(crate) shared_info: Page,
    /// Whether it is a translated one.
    pub(crate) translated: bool,
}

/// The file; pages begin at a multiple of their size.
pub(crate) fn write(domain: &Domain) -> Vec<u8> {
    let magic: u64 = if domain.translated { 0xf00f_ebee } else { 0xf00f_ebed };
    let mut notes = Vec::new();
    note(&mut notes, 0x200_0000, &[]);
    let head = [magic, domain.vcpus.len() as u64, domain.pages.len() as u64, PAGE as u64];
    note(&mut notes, 0x200_0001, &words(&head));
    let mut version = words(&[4, 20]);
    version.extend(field(".5-pre", 16));
    version.extend(field("gcc", 64));
    version.extend(field("root", 16));
    version.extend(field("host", 32));
    version.extend(field("today", 32));
    version.extend(field("xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ", 1024));
    version.extend(field("", 64));
    version.extend(words(&[0xffff_8000_0000_0000, PAGE as u64]));
    note(&mut notes, 0x200_0002, &version);
    note(&mut notes, 0x200_0003, &words(&[1]));
    let mut contexts = Vec::new();
    for (regs, root) in &domain.vcpus {
        let mut context = vec![0; 5168];
        context[512] = if domain.translated { 0x21 } else { 0x3d };
        context[520..520 + 168].copy_from_slice(&words(regs));
        context[4984 + 24..][..8].copy_from_slice(&(root << 12).to_le_bytes());
        if !domain.translated {
            // Xen puts the virtual IOPL into rflags.
            context[520 + 18 * 8 + 1] |= 0x10;
            context[4984 + 8..][..8].copy_from_slice(&(root << 12).to_le_bytes());
        }
        contexts.extend(context);
    }
    let list: Vec<u64> = match domain.translated {
        true => domain.pages.iter().map(|p| p.0).collect(),
        false => domain.pages.iter().flat_map(|p| [p.0, p.1]).collect(),
    };
    let pages: Vec<u8> = domain.pages.iter().flat_map(|p| p.2.iter().copied()).collect();
    let (name, entry) = if domain.translated { (".xen_pfn", 8) } else { (".xen_p2m", 16) };
    let names = format!("\0.shstrtab\0.note.Xen\0.xen_prstatus\0.xen_shared_info\0.xen_pages\0{name}\0");
    // Name, type, content, size of an entry, alignment; in the order of the file but for the names, whose bytes come last.
    let sections: [(&str, u32, &[u8], u64, u64); 6] = [
        (".shstrtab", 3, names.as_bytes(), 0, 0),
        (".note.Xen", 7, &notes, 0, 0),
        (".xen_prstatus", 1, &contexts, 5168, 8),
        (".xen_shared_info", 1, &domain.shared_info[..], PAGE as u64, 8),
        (".xen_pages", 1, &pages, PAGE as u64, PAGE as u64),
        (name, 1, &words(&list), entry, 8),
    ];
    let count = sections.len() + 1;
    let mut out = b"\x7fELF\x02\x01\x01\0\x01".to_vec();
    out.resize(16, 0);
    out.extend(4_u16.to_le_bytes());
    out.extend(62_u16.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    out.extend(words(&[0, 0, 64]));
    out.extend(0_u32.to_le_bytes());
    [64, 56, 0, 64, count as u16, 1].iter().for_each(|n: &u16| out.extend(n.to_le_bytes()));
    out.resize(64 + 64 * count, 0);
    for i in (1..sections.len()).chain([0]) {
        let (name, kind, content, entry, align) = sections[i];
        if name == ".xen_pages" {
            out.resize(out.len().next_multiple_of(PAGE), 0);
        }
        let mut header = Vec::new();
        header.extend((names.find(&format!("{name}\0")).unwrap() as u32).to_le_bytes());
        header.extend(kind.to_le_bytes());
        header.extend(words(&[0, 0, out.len() as u64, content.len() as u64, 0, align, entry]));
        out[64 * (i + 2)..64 * (i + 2) + 64].copy_from_slice(&header);
        out.extend(content);
    }
    out
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn field(text: &str, len: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(len, 0);
    bytes
}

fn note(out: &mut Vec<u8>, kind: u32, desc: &[u8]) {
    [4, desc.len() as u32, kind].iter().for_each(|n: &u32| out.extend(n.to_le_bytes()));
    out.extend(b"Xen\0");
    out.extend(desc);
}
