use super::*;
use crate::source::kdump;
use proptest::prelude::*;
use std::io::Cursor;

type Records = Vec<(u64, Vec<u8>)>;

fn stream(records: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    out.resize(RECORDS as usize, 0);
    for (at, data) in records {
        out.extend(at.to_be_bytes());
        out.extend((data.len() as u64).to_be_bytes());
        out.extend(data);
    }
    out.extend([0xff; 16]);
    out
}

/// What the file holds: nothing where no record is for.
fn rearranged(records: &[(u64, Vec<u8>)]) -> Vec<Option<u8>> {
    let mut file = Vec::new();
    for (at, data) in records {
        let end = *at as usize + data.len();
        file.resize(file.len().max(end), None);
        file[*at as usize..end].iter_mut().zip(data).for_each(|(to, from)| *to = Some(*from));
    }
    file
}

fn in_place(bytes: &[u8]) -> Flat {
    Flat::in_place(Box::new(bytes.to_vec()), 1 << 20).unwrap().unwrap()
}

fn from_pipe(bytes: &[u8]) -> Box<dyn ReadAt> {
    Packed::stream(Box::new(Cursor::new(bytes.to_vec()))).spool(&OpenOptions::default()).unwrap()
}

/// Each byte, or nothing where it cannot be read.
fn bytes(file: &dyn ReadAt) -> Vec<Option<u8>> {
    let byte = |at| {
        let mut byte = [0];
        match file.read_exact_at(FileOffset(at), &mut byte) {
            Ok(()) => Some(byte[0]),
            Err(e) => {
                assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
                None
            }
        }
    };
    (0..file.len()).map(byte).collect()
}

fn damage(file: &dyn ReadAt, words: &str) -> Option<u64> {
    file.history().damage.count(words)
}

/// In place and through a pipe.
fn both(bytes: &[u8], check: impl Fn(&dyn ReadAt)) {
    check(&in_place(bytes));
    check(&*from_pipe(bytes));
}

/// Records of kdump's format: headers, blocks of 4096 bytes behind them, and other bytes behind these.
fn kdump_like() -> Records {
    let mut head = vec![0; 464];
    head[..8].copy_from_slice(kdump::SIGNATURE);
    // Two blocks of sub-header, one of bitmaps.
    head[432] = 2;
    head[436] = 1;
    vec![(0, head), (4200, vec![1; 5000]), (4096, vec![2; 104]), (12288, vec![3; 4096]), (16384, vec![4; 3000])]
}

#[test]
fn headers_with_every_byte_flipped_and_cut_at_every_length() {
    let records = [(0, vec![1; 40]), (100, vec![2; 30]), (20, vec![3; 90])];
    let whole = stream(&records);
    for n in 0..whole.len() {
        let flat = in_place(&whole[..n]);
        assert!(flat.history().cut_at == Some(n as u64) && damage(&flat, "cut short").is_some());
        assert!(flat.len() <= 130);
    }
    for at in 0..whole.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bad = whole.clone();
            bad[at] ^= flip;
            let Ok(flat) = Flat::in_place(Box::new(bad), 99) else { continue };
            let flat = flat.unwrap();
            let mut buf = vec![0; flat.len().min(200) as usize];
            let _ = flat.read_exact_at(FileOffset(0), &mut buf);
        }
    }
}

#[test]
fn padding_before_headers_is_zero_and_no_other_gap() {
    let mut records = kdump_like();
    both(&stream(&records), |file| {
        assert!(file.history().damage.is_empty(), "{:?}", file.history());
        let got = bytes(file);
        assert!(got[464..4096].iter().chain(&got[9200..12288]).all(|b| *b == Some(0)));
    });
    // The same behind the headers.
    records.push((20480, vec![5; 10]));
    both(&stream(&records), |file| {
        assert_eq!(damage(file, "no record"), Some(20480 - 19384));
        assert_eq!(bytes(file)[19384], None);
    });
    // More than a block is no padding.
    for (lost, bytes) in [(1, 12288 - 4200), (3, 16384 - 9200)] {
        let mut records = kdump_like();
        records.remove(lost);
        both(&stream(&records), |file| assert_eq!(damage(file, "no record"), Some(bytes)));
    }
}

/// The place of a record is damaged, in each of its bits.
#[test]
fn what_a_record_of_another_place_should_have_filled_is_lost() {
    let mut records: Records = (0..40).map(|n| (n * 100, vec![n as u8 + 1; 100])).collect();
    let want = rearranged(&records);
    for bit in 0..64 {
        records[20].0 = 2000 ^ (1 << bit);
        both(&stream(&records), |file| {
            assert!(!file.history().damage.is_empty(), "bit {bit}");
            assert!(file.len() <= 4000 || bit < 41, "bit {bit}: {}", file.len());
            for (at, want) in want.iter().enumerate().filter(|(at, _)| bit > 12 || *at == 2000) {
                let mut byte = [0];
                let got = file.read_exact_at(FileOffset(at as u64), &mut byte).ok().map(|()| byte[0]);
                if (2000..2100).contains(&at) {
                    assert!(got.is_none() || bit < 7, "bit {bit}: {at} is {got:?}");
                } else {
                    assert_eq!(got, *want, "bit {bit}: {at}");
                }
            }
        });
    }
}

/// The size of a record is damaged: what it swallows is no data.
#[test]
fn a_record_of_another_size_ends_the_stream_and_swallows_nothing() {
    let records: Records = (0..40).map(|n| (n * 100, vec![n as u8 + 1; 100])).collect();
    let want = rearranged(&records);
    for bit in 7..64 {
        let mut bad = stream(&records);
        let at = RECORDS as usize + 20 * 116 + 8 + 7 - bit / 8;
        bad[at] ^= 1 << (bit % 8);
        both(&bad, |file| {
            let told = ["bad record", "place cannot be", "cut short"].iter().any(|words| damage(file, words).is_some());
            assert!(told, "bit {bit}: {:?}", file.history());
            // Larger than all others, and too small to be told from the last one by its size alone.
            let long = if damage(file, "cut short").is_some() { 2100 } else { 2000 };
            assert_eq!(bytes(file)[..2000], want[..2000], "bit {bit}");
            assert!(file.len() <= long || bit < 24, "bit {bit}: {}", file.len());
        });
    }
}

#[test]
fn other_types_are_refused_and_other_versions_told() {
    let mut bytes = stream(&[(0, vec![1; 10])]);
    bytes[31] = 2;
    both(&bytes, |file| assert!(file.len() == 10 && file.history().damage.to_string().contains("version 0x2")));
    bytes[23] = 2;
    let e = Flat::in_place(Box::new(bytes.clone()), 9).err().unwrap().to_string();
    assert!(e.contains("type 0x2"), "{e}");
    let e = Packed::stream(Box::new(Cursor::new(bytes))).spool(&OpenOptions::default()).err().unwrap().to_string();
    assert!(e.contains("type 0x2"), "{e}");
}

#[test]
fn records_that_follow_each_other_are_one_extent() {
    let memory = |n: u64| (n * 16, vec![n as u8; 16]);
    let mut records: Records = (1..200).map(memory).collect();
    records.push((3200, vec![7; 5]));
    records.push((0, vec![9; 16]));
    let flat = in_place(&stream(&records));
    assert_eq!((flat.index.count(), flat.history().damage.is_empty()), (2, true));
    assert_eq!(bytes(&flat), rearranged(&records));
    assert_eq!(flat.slice(FileOffset(160), 16).unwrap(), [10; 16]);
    assert!(flat.slice(FileOffset(160), 17).is_none());
}

/// More extents than there may be: the stream is given back, and rearranged.
#[test]
fn a_stream_of_too_many_records_is_given_back() {
    let records: Records = (0..50).map(|n| ((49 - n) * 10, vec![n as u8; 10])).collect();
    let bytes_of = stream(&records);
    let back = Flat::in_place(Box::new(bytes_of.clone()), 10).unwrap().err().unwrap();
    assert_eq!(back.len(), bytes_of.len() as u64);
    let file = from_pipe(&bytes_of);
    assert!(file.history().damage.is_empty() && bytes(&*file) == rearranged(&records));
}

/// A header of which a larger one is written later does not make good records bad, in whichever way it is read.
#[test]
fn the_last_headers_count() {
    let head = |pages: u32| {
        let mut head = vec![0; 464];
        head[..8].copy_from_slice(kdump::SIGNATURE);
        head[8] = 6;
        head[428..432].copy_from_slice(&4096_u32.to_le_bytes());
        head[432] = 1;
        head[436] = 2;
        head[440..444].copy_from_slice(&pages.to_le_bytes());
        head
    };
    let far = (200 << 20, vec![8; 100]);
    let records =
        |pages| vec![(0, head(9)), (4096, vec![0; 104]), far.clone(), (0, head(pages)), (8192, vec![1; 4096])];
    both(&stream(&records(1 << 16)), |file| {
        assert_eq!(damage(file, "beyond"), None);
        assert!(file.len() == far.0 + 100);
    });
    both(&stream(&records(10)), |file| {
        assert_eq!(damage(file, "beyond"), Some(100), "{:?}", file.history());
        assert_eq!(file.len(), 12288);
    });
}

/// Records at random, some of which go on where the last one ended.
fn records() -> impl Strategy<Value = Records> {
    let one = (any::<bool>(), 0u64..300, prop_oneof![Just(16_usize), 2_usize..80], any::<u8>());
    prop::collection::vec(one, 1..30).prop_map(|all| {
        let (mut end, mut records) = (0, Vec::new());
        for (goes_on, start, len, first) in all {
            let start = if goes_on { end } else { start };
            end = start + len as u64;
            records.push((start, (0..len).map(|n| first.wrapping_add(n as u8)).collect()));
        }
        records
    })
}

proptest! {
    #[test]
    fn the_later_record_wins(records in records(), cut in any::<prop::sample::Index>()) {
        let (stream, want) = (stream(&records), rearranged(&records));
        let flat = in_place(&stream);
        prop_assert_eq!(&bytes(&flat), &want);
        prop_assert_eq!(&bytes(&*from_pipe(&stream)), &want);
        let lost = want.iter().filter(|b| b.is_none()).count() as u64;
        prop_assert_eq!(damage(&flat, "no record").unwrap_or_default(), lost);
        for at in 0..want.len() {
            for len in [1, 7] {
                if let Some(slice) = flat.slice(FileOffset(at as u64), len) {
                    prop_assert!(slice.iter().map(|b| Some(*b)).eq(want[at..at + len].iter().copied()));
                }
            }
        }
        // Cut short: the same as if the records behind were not there.
        let len = 16 + cut.index(stream.len() - 16);
        let (mut at, mut there) = (RECORDS as usize, Vec::new());
        for (start, data) in &records {
            let end = len.saturating_sub(at + 16).min(data.len());
            there.push((*start, data[..end].to_vec()));
            at += 16 + data.len();
        }
        there.retain(|(_, data)| !data.is_empty());
        prop_assert_eq!(bytes(&in_place(&stream[..len])), rearranged(&there));
        prop_assert_eq!(bytes(&*from_pipe(&stream[..len])), rearranged(&there));
    }
}
