use super::*;
use clap::CommandFactory;

#[test]
fn the_definition_holds_together() {
    Args::command().debug_assert();
}

#[test]
fn a_cut_needs_both_names_and_info_one() {
    let parse = |line: &str| Args::try_parse_from(line.split(' '));
    assert!(parse("xdump-cut a b").is_ok());
    assert!(parse("xdump-cut a").is_err());
    assert!(parse("xdump-cut info a").is_ok_and(|a| a.command.is_some()));
    assert!(parse("xdump-cut info a b").is_err() && parse("xdump-cut a b c").is_err());
    assert!(parse("xdump-cut info --split a b").is_ok());
    let cut = parse("xdump-cut --split a b c d").unwrap().cut.settle().unwrap();
    assert_eq!(cut.inputs(), ["a", "b", "c"].map(Path::new));
    assert_eq!(cut.out.as_deref(), Some(Path::new("d")));
    for line in ["xdump-cut a b --split 3", "xdump-cut --split 3 a b"] {
        let cut = parse(line).unwrap().cut.settle().unwrap();
        assert_eq!(
            (cut.inputs(), cut.out.as_deref(), cut.parts()),
            (vec![Path::new("a")], Some(Path::new("b")), Some(3))
        );
    }
    let cut = parse("xdump-cut --split a b").unwrap().cut.settle().unwrap();
    assert_eq!((cut.inputs(), cut.out.as_deref()), (vec![Path::new("a")], Some(Path::new("b"))));
    assert!(parse("xdump-cut --split a").is_err());
    let cut = parse("xdump-cut -F a").unwrap().cut.settle().unwrap();
    assert_eq!((cut.inputs(), cut.out.as_deref()), (vec![Path::new("a")], Some(Path::new("-"))));
    for line in ["-F --dry-run a", "--dry-run --split 3 a", "--dry-run a"] {
        let cut = parse(&format!("xdump-cut {line}")).unwrap().cut.settle().unwrap();
        assert_eq!(cut.inputs(), [Path::new("a")], "{line}");
    }
    let cut = parse("xdump-cut --dump-dmesg l a b").unwrap().cut.settle().unwrap();
    assert_eq!((cut.inputs(), cut.out.as_deref()), (vec![Path::new("a")], Some(Path::new("b"))));
    assert_eq!(cut.logs.dump_dmesg.as_deref(), Some(Path::new("l")));
    for line in ["--dump-dmesg a l", "l --dump-dmesg a", "--dump-xen-dmesg x -f --dump-dmesg a l"] {
        let cut = parse(&format!("xdump-cut {line}")).unwrap().cut.settle().unwrap();
        assert_eq!((cut.inputs(), cut.out.as_deref()), (vec![Path::new("a")], None), "{line}");
        assert_eq!(cut.logs.dump_dmesg.as_deref(), Some(Path::new("l")), "{line}");
    }
    let memory = |s: &str| parse(&format!("xdump-cut --memory {s} a b")).ok()?.cut.limits.memory;
    assert_eq!((memory("64M"), memory("16777216"), memory("15M")), (Some(64 << 20), Some(16 << 20), None));
    let timeout = |s: &str| Some(parse(&format!("xdump-cut --timeout {s} a b")).ok()?.cut.limits.timeout?.as_secs());
    assert_eq!(
        (timeout("90"), timeout("7s"), timeout("5m"), timeout("2h")),
        (Some(90), Some(7), Some(300), Some(7200))
    );
    assert!(["0", "", "s", "1d", "-1", "99999999999"].into_iter().all(|s| timeout(s).is_none()));
    assert!(parse("xdump-cut --split 300 a b").unwrap().cut.settle().is_err());
    assert!(parse("xdump-cut mount a b").is_ok() && parse("xdump-cut mount a -- b {}").is_ok());
    assert!(parse("xdump-cut mount a").is_err() && parse("xdump-cut mount a b c").is_err());
    assert!(parse("xdump-cut mount --split a b c").is_ok() && parse("xdump-cut mount a b --domain 3").is_err());
    assert!(parse("xdump-cut mount --domain 3 --cache 9M a -- b --domain {}").is_ok());
    assert!(parse("xdump-cut log a --domain 3 --raw").is_ok_and(|a| a.command.is_some()));
    assert!(parse("xdump-cut log a --domain 3 --xen").is_err());
    let codec = |options: &str| parse(&format!("xdump-cut {options} a b")).ok()?.cut.form.compression.codec();
    for (short, long) in [("-z", "zstd"), ("-c", "zlib"), ("-l", "lzo"), ("-p", "snappy")] {
        assert_eq!(codec(short), long.parse().ok());
        assert_eq!(codec(&format!("--compress={long}")), long.parse().ok());
        for other in ["-E", "--compress=none", "-zc", "-lp"] {
            assert!(parse(&format!("xdump-cut {short} {other} a b")).is_err(), "{short} {other}");
        }
        assert!(parse(&format!("xdump-cut -E --compress={long} a b")).is_err());
    }
    assert!(parse("xdump-cut -d 31 a b").is_ok_and(|a| a.cut.form.level == Some(Level::MOST)));
    assert!(parse("xdump-cut -d 32 a b").is_err());
    assert!(parse("xdump-cut -d 1 --exclude free a b").is_err());
    assert!(parse("xdump-cut --threads 0 a b").is_err());
    assert!(parse("xdump-cut -L 3M a b").is_ok_and(|a| a.cut.limit == Some(3 << 20)));
    assert!(parse("xdump-cut -L 99999999999T a b").is_err() && parse("xdump-cut -L 0 a b").is_err());
    assert!(parse("xdump-cut --layout machine --keep-xen a b").is_ok_and(|a| a.cut.keep_xen));
    assert!(parse("xdump-cut --layout mfn a b").is_err());
}
