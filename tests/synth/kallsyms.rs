//! Linux's compressed kallsyms tables (scripts/kallsyms.c), as VMCOREINFO exports them from 6.0 on.

use super::KallsymsBase;

#[derive(Clone, Debug)]
pub struct Symbol {
    pub va: u64,
    pub kind: char,
    pub name: String,
}

impl Symbol {
    pub fn new(va: u64, kind: char, name: &str) -> Self {
        Symbol { va, kind, name: name.to_owned() }
    }
}

pub struct Tables {
    pub names: Vec<u8>,
    pub token_table: Vec<u8>,
    pub token_index: Vec<u8>,
    pub offsets: Vec<u8>,
    pub relative_base: u64,
    pub count: u32,
}

/// Strings that get a code of their own; the real tables hold 256 minus the characters in use.
const TOKENS: &[&str] = &[
    "__",
    "xen_",
    "_start",
    "init",
    "_info",
    "sys_",
    "__x64_",
    "kallsyms_",
    "vmcore",
    "_pv",
    "page",
    "pg",
    "Txen_",
    "D",
    "t__",
    "_table",
    "driver_",
    "probe",
    "_ops",
    "dev",
    "read",
    "write",
    "net",
    "re",
    "er",
    "in",
    "st",
    "_dir",
];

/// A code per byte: characters in use stand for themselves, the others are given to tokens.
fn codes(symbols: &[Symbol]) -> Vec<String> {
    let mut used = [false; 256];
    for s in symbols {
        used[s.kind as usize] = true;
        s.name.bytes().for_each(|b| used[usize::from(b)] = true);
    }
    let mut tokens = TOKENS.iter();
    // From the top down, as the real tool hands them out, so that codes above 0x7f are in use.
    let mut table = vec![String::new(); 256];
    for c in (0..256).rev() {
        table[c] = if used[c] {
            char::from(c as u8).to_string()
        } else {
            tokens.next().map_or_else(String::new, |t| (*t).to_owned())
        };
    }
    table
}

fn compress(text: &str, codes: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (code, token) = codes
            .iter()
            .enumerate()
            .filter(|(_, t)| !t.is_empty() && rest.starts_with(t.as_str()))
            .max_by_key(|(_, t)| t.len())
            .unwrap();
        out.push(code as u8);
        rest = &rest[token.len()..];
    }
    out
}

/// `symbols` sorted by address as the kernel has them: per-CPU ones (va below 1 MiB) first.
pub fn encode(symbols: &[Symbol], base: KallsymsBase, offsets_va: u64) -> Tables {
    let codes = codes(symbols);
    let relative_base = symbols.iter().map(|s| s.va).filter(|&va| va >> 63 == 1).min().unwrap();
    let mut t = Tables {
        names: Vec::new(),
        token_table: Vec::new(),
        token_index: Vec::new(),
        offsets: Vec::new(),
        relative_base,
        count: symbols.len() as u32,
    };
    for token in &codes {
        t.token_index.extend_from_slice(&(t.token_table.len() as u16).to_le_bytes());
        t.token_table.extend_from_slice(token.as_bytes());
        t.token_table.push(0);
    }
    for (i, s) in symbols.iter().enumerate() {
        let name = compress(&format!("{}{}", s.kind, s.name), &codes);
        // 6.1: lengths above 127 take two bytes, low seven bits first.
        if name.len() > 127 {
            t.names.push(name.len() as u8 & 0x7f | 0x80);
            t.names.push((name.len() >> 7) as u8);
        } else {
            t.names.push(name.len() as u8);
        }
        t.names.extend_from_slice(&name);
        let offset = match base {
            KallsymsBase::AbsolutePercpu if s.va >> 63 == 0 => s.va as i32,
            KallsymsBase::AbsolutePercpu => -1 - (s.va - relative_base) as i32,
            KallsymsBase::Relative => s.va.wrapping_sub(relative_base) as i32,
            KallsymsBase::Place => s.va.wrapping_sub(offsets_va + 4 * i as u64) as i32,
        };
        t.offsets.extend_from_slice(&offset.to_le_bytes());
    }
    t
}
