//! The `xdump-cut` command; see the library for everything.

fn main() -> xdump_cut::cli::exit::Exit {
    xdump_cut::cli::run()
}
