//! The command.
fn main() {
    use xdump_cut::{source, xen};
    let path = std::env::args().nth(1).unwrap_or_default();
    let src = source::open(path.as_ref(), &Default::default()).unwrap_or_else(|e| { eprintln!("{e}"); std::process::exit(1) });
    let mut core = source::Vmcore::parse(&*src).unwrap_or_else(|e| { eprintln!("{e}"); std::process::exit(1) });
    let seg = core.take_segments(src.len());
    let mem = source::MachineMemory::new(&*src, seg);
    let host = xen::Host::open(&mem, &core).unwrap_or_else(|e| { eprintln!("{e}"); std::process::exit(1) });
    eprintln!("{} {:?} {:?} {}", host.version(), host.strings, host.state_bits, host.state_votes);
    for d in &host.domains { eprintln!("{} {} {:?}", d.id, d.va, d.shared_info); }
    eprintln!("{:?}", xen::survey::Survey::take(&host));
    let ds: Vec<_> = host.domains.iter().collect();
    for (d, l) in xen::vcpu::vcpus(&host, &ds) { for v in l { eprintln!("d{d}v{} {} cpu{} {:?} {:x?}", v.id, v.va, v.processor, v.state, v.regs.map(|r| (r.rip, r.rsp))); } }
    let p = xen::P2m::read_tree(&host, host.hardware_domain().unwrap_or(&host.domains[0])).unwrap_or_else(|e| { eprintln!("{e}"); std::process::exit(1) });
    eprintln!("{:?} runs {} tables {} end {}", p.check, p.runs().len(), p.tables.len(), p.end());
    eprintln!("{:?} {:?}", host.warnings, host.frames.pdx().is_linear());
}
