//! `vcpu.runstate`: what a vCPU was at, and for how long (Xen: public/vcpu.h).
//!
//! | offset | field |
//! |---|---|
//! | 0 | state: 0 running, 1 runnable, 2 blocked, 3 offline |
//! | 8 | when it got there, in nanoseconds since boot |
//! | 16 | nanoseconds spent in each of the four |
//!
//! Nothing tells where it stands (0xd0 to 0xf0 in Xen 4.14 to 4.20), but it is the first field of struct vcpu whose four
//! times add up to no more than the time of the last change, in every vCPU, with the vCPUs on a CPU running.

use crate::bytes::{u64_at, words};

const RUNNING: u64 = 0;
const OFFLINE: u64 = 3;
/// Where it can stand: behind the head and a few timers.
const PLACES: std::ops::Range<usize> = 0x60..0x200;
/// No machine is up for longer: 36 years.
const LONGEST: u64 = 1 << 60;

/// What one vCPU's field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Runstate {
    state: u64,
    since: u64,
    times: [u64; 4],
}

impl Runstate {
    fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        // The state is 32 bits wide, and the padding behind it zero.
        let (state, since) = (u64_at(bytes, at)?, u64_at(bytes, at + 8)?);
        let mut times = [0; 4];
        times.iter_mut().zip(words(bytes.get(at + 16..)?)).for_each(|(t, w)| *t = w);
        let bounded = (1..LONGEST).contains(&since) && times.iter().all(|t| *t < LONGEST);
        let sound = state <= OFFLINE && bounded && times.iter().sum::<u64>() <= since;
        // What was ever anything but offline has spent time.
        (sound && (state == OFFLINE || times.iter().any(|t| *t > 0))).then_some(Self { state, since, times })
    }
}

/// Where the field stands in every struct vcpu of the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runstates {
    at: Option<usize>,
}

impl Runstates {
    /// Finds it: `vcpus` are their memories, and whether each is on a CPU.
    pub(super) fn find<'v>(vcpus: impl Iterator<Item = (&'v [u8], bool)> + Clone) -> Self {
        let fits = |at: &usize| {
            let mut ran = false;
            for (bytes, on_cpu) in vcpus.clone() {
                let Some(found) = Runstate::parse(bytes, *at) else { return false };
                if on_cpu && found.state != RUNNING {
                    return false;
                }
                ran |= on_cpu || found.times.first().is_some_and(|t| *t > 0);
            }
            ran
        };
        Self { at: PLACES.step_by(8).find(fits) }
    }

    /// Whether a vCPU is on a CPU.
    pub(super) fn is_running(&self, bytes: &[u8]) -> bool {
        self.at.and_then(|at| Runstate::parse(bytes, at)).is_some_and(|r| r.state == RUNNING)
    }

    /// Whether Xen does not run a vCPU.
    pub(super) fn is_offline(&self, bytes: &[u8]) -> bool {
        self.at.and_then(|at| Runstate::parse(bytes, at)).is_some_and(|r| r.state == OFFLINE)
    }

    /// Whether a vCPU has never run: its guest has not brought it up.
    pub(super) fn never_ran(&self, bytes: &[u8]) -> bool {
        let found = self.at.and_then(|at| Runstate::parse(bytes, at));
        found.is_some_and(|r| r.state == OFFLINE && r.times.first() == Some(&0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vcpu(at: usize, words: [u64; 6]) -> Vec<u8> {
        let mut bytes = vec![0; 0x200];
        for (i, w) in words.iter().enumerate() {
            bytes[at + i * 8..][..8].copy_from_slice(&w.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn only_a_vcpu_without_time_on_a_cpu_never_ran() {
        let (running, stopped) = (vcpu(0xd8, [0, 900, 300, 10, 200, 9]), vcpu(0xd8, [3, 950, 300, 10, 200, 9]));
        let never = vcpu(0xd8, [3, 40, 0, 0, 0, 0]);
        let all = [(&running[..], true), (&stopped[..], false), (&never[..], false)];
        let found = Runstates::find(all.into_iter());
        assert_eq!(found.at, Some(0xd8));
        assert_eq!([&running, &stopped, &never].map(|v| found.never_ran(v)), [false, false, true]);
        // Nobody ran: nothing tells that this is the field.
        assert_eq!(Runstates::find([(&never[..], false)].into_iter()).at, None);
        assert_eq!(Runstates::find([(&stopped[..], true)].into_iter()).at, None);
    }
}
