//! The command.
fn main() {
    use xdump_cut::{source, cut};
    let a: Vec<_> = std::env::args().collect();
    let src = source::open(a[1].as_ref(), &Default::default()).unwrap_or_else(|e| { eprintln!("{e}"); std::process::exit(1) });
    let f = if a[2].ends_with("elf") { cut::Format::Elf } else { cut::Format::Kdump(Default::default()) };
    let out = xdump_cut::sink::Output::create(a[2].as_ref(), true).unwrap_or_else(|e| { eprintln!("{e}"); std::process::exit(1) });
    let o = cut::Options { format: f, level: 1, symbols: None, threads: 0 };
    match cut::cut(&*src, &o, out, &xdump_cut::pipeline::Silent) { Ok(r) => eprintln!("{r}"), Err(e) => { eprintln!("{e}"); std::process::exit(1) } }
}
