//! LZO1X-1 by the system's liblzo2, as makedumpfile compresses with it. A feature, off by default: liblzo2 is under the GPL.
//! lzokay, which is not, decompresses well but compresses 40 to 80 times slower (benches/README.md).

use crate::error::{Error, Result};
use std::ffi::{c_int, c_uint, c_void};
use std::mem::size_of;
use std::sync::OnceLock;

/// The version of the API that the declarations below are of, 2.10.
const VERSION: c_uint = 0x20a0;
/// Words of working memory: LZO1X_1_MEM_COMPRESS, 16384 pointers.
const WORK: usize = 16384;

// lzo/lzoconf.h and lzo/lzo1x.h; lzo_uint is size_t.
#[allow(unsafe_code)]
#[link(name = "lzo2")]
unsafe extern "C" {
    /// What the macro lzo_init() calls: whether the library has the version, and types of the sizes, that the caller has.
    fn __lzo_init_v2(
        version: c_uint,
        short: c_int,
        int: c_int,
        long: c_int,
        lzo_uint32: c_int,
        lzo_uint: c_int,
        dict: c_int,
        char_pointer: c_int,
        pointer: c_int,
        callback: c_int,
    ) -> c_int;

    fn lzo1x_1_compress(src: *const u8, src_len: usize, dst: *mut u8, dst_len: *mut usize, work: *mut c_void) -> c_int;
}

/// A compressor of its own working memory; all that liblzo2 writes to is in it or given.
pub(super) struct Lzo {
    work: Box<[usize]>,
}

impl Lzo {
    /// # Errors
    /// [`Error::Usage`] if the library takes its types for others than these.
    pub(super) fn new() -> Result<Self> {
        static READY: OnceLock<bool> = OnceLock::new();
        if *READY.get_or_init(init) {
            Ok(Self { work: vec![0; WORK].into() })
        } else {
            Err(Error::Usage("the system's liblzo2 is not made as this xdump-cut knows it; compress otherwise".into()))
        }
    }

    /// The most that this many bytes may become (LZO.FAQ).
    pub(super) const fn room(len: usize) -> usize {
        len + len / 16 + 64 + 3
    }

    /// Compresses into `out`, which must have [`Self::room`], and says how much of it that took.
    pub(super) fn compress(&mut self, bytes: &[u8], out: &mut [u8]) -> Option<usize> {
        if out.len() < Self::room(bytes.len()) {
            return None;
        }
        let mut len = out.len();
        let work = self.work.as_mut_ptr().cast();
        // SAFETY: lzo1x_1_compress reads the bytes, writes at most `room` of them to `out`, which has that, and the number
        // to `len`; `work` is as large as it asks for and aligned for pointers. None of them overlap, as they are borrowed
        // apart, it keeps none of the pointers, and has no state beside them, so that threads may call it at once.
        #[allow(unsafe_code)]
        let status = unsafe { lzo1x_1_compress(bytes.as_ptr(), bytes.len(), out.as_mut_ptr(), &mut len, work) };
        (status == 0).then_some(len)
    }
}

fn init() -> bool {
    let size = |bytes: usize| c_int::try_from(bytes).unwrap_or(0);
    let (pointer, lzo_uint) = (size(size_of::<*const u8>()), size(size_of::<usize>()));
    // lzo_callback_t: four pointers and two numbers.
    let callback = 4 * pointer + 2 * lzo_uint;
    let [short, int, long] = [size_of::<i16>(), size_of::<c_int>(), size_of::<std::ffi::c_long>()].map(size);
    // SAFETY: it compares numbers and checks the machine's arithmetic in memory of its own. Called once, before all else.
    #[allow(unsafe_code)]
    let status = unsafe { __lzo_init_v2(VERSION, short, int, long, 4, lzo_uint, pointer, pointer, pointer, callback) };
    status == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_input_overruns_the_room_and_too_little_room_is_refused() {
        let mut lzo = Lzo::new().unwrap();
        let mut seed = 1_u32;
        for len in (0..5000).step_by(7) {
            let noise = std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            });
            let bytes: Vec<u8> = noise.take(len).collect();
            let mut out = vec![0xa5; Lzo::room(len) + 64];
            let (room, behind) = out.split_at_mut(Lzo::room(len));
            let size = lzo.compress(&bytes, room).unwrap();
            assert!(size <= room.len() && behind.iter().all(|b| *b == 0xa5), "{len}");
            let mut back = vec![0; len];
            assert_eq!(lzokay::decompress::decompress(&room[..size], &mut back), Ok(len));
            assert!(back == bytes, "{len}");
            assert_eq!(lzo.compress(&bytes, &mut room[1..]), None);
        }
    }
}
