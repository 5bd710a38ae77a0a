//! Characters and colours of the map's entries.

use super::Owner;

/// Letters for domains besides dom0, in order of their ids; lower case for zeros. D is dom0's, X Xen's, I and O look like
/// digits, S stands for shared.
pub(super) const LETTERS: [char; 20] =
    ['A', 'B', 'C', 'E', 'F', 'G', 'H', 'J', 'K', 'L', 'M', 'N', 'P', 'Q', 'R', 'T', 'U', 'V', 'W', 'Y'];

/// Colours for domains besides dom0, told apart by colour-blind people too (Okabe and Ito's, and Tol's); they repeat. Those
/// that are like a lighter dom0 or like Xen come late.
const DOMAINS: [u32; 10] =
    [0x00_9e73, 0xe6_9f00, 0xcc_79a7, 0x33_2288, 0xd8_c800, 0x11_7733, 0x56_b4e9, 0xaa_4499, 0x99_9933, 0x88_2255];

/// The characters for pages, and for pages of zeros.
pub(super) fn symbols(owner: Owner) -> (char, char) {
    match owner {
        Owner::Dom0(_) => ('D', 'd'),
        Owner::Domain(_, place) => {
            let letter = LETTERS.get(place).copied().unwrap_or('Z');
            (letter, letter.to_ascii_lowercase())
        }
        Owner::Others(_) => ('Z', 'z'),
        Owner::Shared => ('S', 's'),
        Owner::Xen => ('X', 'x'),
        Owner::Free => (':', '.'),
        Owner::Io => ('I', 'i'),
        Owner::Offline => ('!', '!'),
        Owner::Unknown => ('?', '?'),
        Owner::NoEntry => ('~', '~'),
    }
}

/// Red, green and blue.
pub(super) fn colour(owner: Owner) -> u32 {
    match owner {
        Owner::Dom0(_) => 0x00_72b2,
        Owner::Domain(_, place) => DOMAINS.get(place % DOMAINS.len()).copied().unwrap_or(0),
        Owner::Others(_) => 0x66_5c4b,
        Owner::Shared => 0xf4_a582,
        Owner::Xen => 0xa3_161a,
        Owner::Free => 0xb8_bec4,
        Owner::Io => 0x7a_5c99,
        Owner::Offline | Owner::Unknown => 0x00_0000,
        Owner::NoEntry => 0x44_4444,
    }
}

/// The same where most pages are zeros: two thirds of the way to white.
pub(super) fn lighter(colour: u32) -> u32 {
    let mix = |shift: u32| {
        let part = colour >> shift & 0xff;
        (part + (0xff - part) * 2 / 3) << shift
    };
    mix(16) | mix(8) | mix(0)
}
