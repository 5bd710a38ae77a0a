//! The `xdump-cut` command; see the library for everything.

fn main() -> std::process::ExitCode {
    xdump_cut::cli::run()
}
