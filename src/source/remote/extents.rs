//! Which bytes of an object are here or on their way, in bounded memory, and which should be fetched next.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What is fetched for a small read: structures have neighbours that are read next.
pub(super) const BLOCK: u64 = 32 << 10;
/// What a read that goes on where one ended fetches at once at most.
const MOST_AHEAD: u64 = 512 << 10;
/// Ranges apart by no more than this are fetched together: a request costs more than these bytes.
const GAP: u64 = 32 << 10;
/// Bytes of a request at most: several at once are faster than one.
const MOST_AT_ONCE: u64 = 1 << 20;
/// Readers that go on where they ended, at the same time.
const MOST_STREAMS: usize = 32;
/// What was told to be read soon, and was not within so many such words, will not be read.
const STALE: u64 = 1 << 16;

/// A part of the object.
#[derive(Debug)]
struct Extent {
    end: u64,
    /// Nothing while it is on its way.
    bytes: Option<Arc<Vec<u8>>>,
    why: Why,
    /// When it was fetched or used last.
    used: u64,
    /// Whether anything of it was read.
    read: bool,
}

/// Why it was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody waits for it, or may soon: structures.
    Asked,
    /// It was told beforehand: pages, each of which is read once.
    Told,
}

/// A reader that goes on where it ended.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// What is fetched so far ends here.
    next: u64,
    /// When it reads behind this, more is fetched.
    mark: u64,
    /// Bytes that were fetched last.
    window: u64,
}

/// What stands at a place.
#[derive(Debug)]
pub(super) enum Look {
    /// Bytes, and where in them.
    Here(Arc<Vec<u8>>, usize),
    /// On its way.
    Coming,
    /// Nothing.
    Nothing,
}

/// All that is here.
#[derive(Debug)]
pub(super) struct Extents {
    all: BTreeMap<u64, Extent>,
    len: u64,
    now: u64,
    asked: Budget,
    told: Budget,
    /// Bytes that were told, and nothing of them read.
    unread: u64,
    streams: Vec<Stream>,
}

/// Bytes that are held, and how many may be.
#[derive(Clone, Copy, Debug)]
struct Budget {
    held: u64,
    most: u64,
}

impl Extents {
    /// Of an object of `len` bytes, of which `memory` bytes are held at most.
    pub(super) fn new(len: u64, memory: u64) -> Self {
        let asked = (memory / 4).max(2 * BLOCK);
        let told = memory.saturating_sub(asked).max(2 * BLOCK);
        let budget = |most| Budget { held: 0, most };
        let (asked, told) = (budget(asked), budget(told));
        Self { all: BTreeMap::new(), len, now: 0, asked, told, unread: 0, streams: Vec::new() }
    }

    fn budget(&mut self, why: Why) -> &mut Budget {
        match why {
            Why::Asked => &mut self.asked,
            Why::Told => &mut self.told,
        }
    }

    /// What stands at `at`, to be read.
    pub(super) fn look(&mut self, at: u64) -> Look {
        self.now += 1;
        let Some((start, extent)) = self.all.range_mut(..=at).next_back().filter(|(_, e)| at < e.end) else {
            return Look::Nothing;
        };
        extent.used = self.now;
        if !extent.read {
            extent.read = true;
            self.unread = self.unread.saturating_sub(extent.end - start);
        }
        match &extent.bytes {
            Some(bytes) => Look::Here(Arc::clone(bytes), (at - start) as usize),
            None => Look::Coming,
        }
    }

    /// What to fetch for a read of `at` to `end`, of which the first byte is not here.
    pub(super) fn miss(&mut self, at: u64, end: u64) -> Vec<Range<u64>> {
        let from = at - at % BLOCK;
        let known = self.streams.iter().position(|s| (s.next.saturating_sub(BLOCK)..=s.next + BLOCK).contains(&at));
        let mut stream = match known {
            Some(n) => self.streams.remove(n),
            None => Stream { next: from, mark: u64::MAX, window: 0 },
        };
        // One that is large tells itself what it wants.
        let size = (end - at).max(if known.is_some() { 2 * stream.window } else { BLOCK });
        stream.window = size.min(self.most_ahead()).max(BLOCK);
        let from = if known.is_some() { from.max(stream.next.min(at)) } else { from };
        let upto = end.max(from + stream.window).next_multiple_of(BLOCK).min(self.len);
        stream.next = upto;
        stream.mark = if known.is_some() { upto - (upto - from) / 2 } else { u64::MAX };
        self.keep(stream);
        self.want(from..upto, Why::Asked)
    }

    /// What to fetch beforehand, when a read went up to `end`.
    pub(super) fn ahead(&mut self, end: u64) -> Vec<Range<u64>> {
        let Some(n) = self.streams.iter().position(|s| (s.mark..=s.next).contains(&end)) else { return Vec::new() };
        let mut stream = self.streams.remove(n);
        let from = stream.next;
        stream.window = (2 * stream.window).min(self.most_ahead()).max(BLOCK);
        stream.next = (from + stream.window).min(self.len);
        stream.mark = if stream.next == self.len { u64::MAX } else { from };
        self.keep(stream);
        self.want(from..stream.next, Why::Asked)
    }

    fn most_ahead(&self) -> u64 {
        MOST_AHEAD.min(self.asked.most / 4)
    }

    /// Those that read last are last.
    fn keep(&mut self, stream: Stream) {
        if self.streams.len() >= MOST_STREAMS {
            self.streams.remove(0);
        }
        self.streams.push(stream);
    }

    /// What to fetch of ranges that will be read soon; as much as there is room for.
    pub(super) fn tell(&mut self, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        self.now += 1;
        let mut missing = Vec::new();
        let mut joined: Option<Range<u64>> = None;
        let len = self.len;
        for range in ranges.iter().filter(|r| r.start < r.end && r.end <= len) {
            match &mut joined {
                Some(last) if range.start <= last.end.saturating_add(GAP) => last.end = last.end.max(range.end),
                _ => {
                    if let Some(whole) = joined.replace(range.clone()) {
                        missing.extend(self.tell_one(whole));
                    }
                }
            }
        }
        if let Some(whole) = joined {
            missing.extend(self.tell_one(whole));
        }
        missing
    }

    /// As much of a range as there is room for: what is not fetched now is fetched when it is read.
    fn tell_one(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        let (mut missing, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let end = range.end.min(at + MOST_AT_ONCE);
            if self.unread + (end - at) > self.told.most {
                self.forget_stale();
            }
            if self.unread + (end - at) > self.told.most {
                break;
            }
            missing.extend(self.want(at..end, Why::Told));
            at = end;
        }
        missing
    }

    /// The parts of a range that are not here nor on their way. They are, from now on.
    fn want(&mut self, range: Range<u64>, why: Why) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = range.start;
        let before = self.all.range(..=at).next_back().map(|(start, e)| *start..e.end).filter(|e| at < e.end);
        let there: Vec<Range<u64>> = before
            .into_iter()
            .chain(self.all.range(range.start + 1..range.end.max(range.start + 1)).map(|(s, e)| *s..e.end))
            .collect();
        let last = range.end..range.end;
        for next in there.into_iter().chain([last]) {
            while at < next.start.min(range.end) {
                let end = next.start.min(range.end).min(at + MOST_AT_ONCE);
                missing.push(at..end);
                at = end;
            }
            at = at.max(next.end);
        }
        for part in &missing {
            let (size, read) = (part.end - part.start, why == Why::Asked);
            self.all.insert(part.start, Extent { end: part.end, bytes: None, why, used: self.now, read });
            self.budget(why).held += size;
            self.unread += if read { 0 } else { size };
        }
        self.make_room(why);
        missing
    }

    /// What was fetched is here; nothing if it could not be had.
    pub(super) fn came(&mut self, start: u64, bytes: Option<Vec<u8>>) {
        match (bytes, self.all.get_mut(&start)) {
            (Some(bytes), Some(extent)) => extent.bytes = Some(Arc::new(bytes)),
            (None, Some(_)) => self.forget(start),
            (_, None) => {}
        }
    }

    /// Forgets what is likely of least use, but nothing that is on its way.
    fn make_room(&mut self, why: Why) {
        let budget = *self.budget(why);
        if budget.held <= budget.most {
            return;
        }
        let here = self.all.iter().filter(|(_, e)| e.why == why && e.bytes.is_some());
        let mut here: Vec<(bool, u64, u64)> = here.map(|(start, e)| (!e.read, e.used, *start)).collect();
        here.sort_unstable();
        // Some more than need be, so that it is not to be done again at once.
        let enough = budget.most - budget.most / 8;
        for (_, _, start) in here {
            if self.budget(why).held <= enough {
                break;
            }
            self.forget(start);
        }
    }

    fn forget_stale(&mut self) {
        let before = self.now.saturating_sub(STALE);
        let stale = self.all.iter().filter(|(_, e)| !e.read && e.bytes.is_some() && e.used < before);
        let stale: Vec<u64> = stale.map(|(start, _)| *start).collect();
        stale.into_iter().for_each(|start| self.forget(start));
    }

    fn forget(&mut self, start: u64) {
        if let Some(extent) = self.all.remove(&start) {
            let size = extent.end - start;
            let budget = self.budget(extent.why);
            budget.held = budget.held.saturating_sub(size);
            self.unread = self.unread.saturating_sub(if extent.read { 0 } else { size });
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "ranges are what is compared")]
mod tests {
    use super::*;

    const K: u64 = 1 << 10;

    fn fetch(extents: &mut Extents, ranges: &[Range<u64>]) -> u64 {
        let sizes = ranges.iter().map(|r| r.end - r.start);
        let all = sizes.sum();
        ranges.iter().for_each(|r| extents.came(r.start, Some(vec![7; (r.end - r.start) as usize])));
        all
    }

    #[test]
    fn small_reads_here_and_there_fetch_a_block_each() {
        let mut extents = Extents::new(1 << 30, 64 << 20);
        assert!(matches!(extents.look(100 * K), Look::Nothing));
        assert_eq!(extents.miss(100 * K, 100 * K + 8), [96 * K..128 * K]);
        assert!(matches!(extents.look(100 * K), Look::Coming));
        fetch(&mut extents, &[96 * K..128 * K]);
        assert!(
            matches!(extents.look(100 * K), Look::Here(bytes, at) if at as u64 == 4 * K && bytes.len() as u64 == 32 * K)
        );
        assert_eq!(extents.ahead(128 * K), []);
        assert_eq!(extents.miss(7 << 20, (7 << 20) + 8), [7 << 20..(7 << 20) + BLOCK]);
        // What is here is not fetched again, nor what is behind the end.
        assert_eq!(extents.miss(90 * K, 140 * K), [64 * K..96 * K, 128 * K..160 * K]);
        assert_eq!(extents.miss((1 << 30) - 5, 1 << 30), [(1 << 30) - BLOCK..1 << 30]);
    }

    #[test]
    fn reads_that_go_on_fetch_more_and_beforehand() {
        let mut extents = Extents::new(1 << 30, 256 << 20);
        let (mut requests, mut fetched, mut waits) = (0, 0, 0);
        for at in (0..64 << 20).step_by(4096) {
            let missing = match extents.look(at) {
                Look::Nothing => {
                    waits += 1;
                    extents.miss(at, at + 4096)
                }
                _ => extents.ahead(at + 4096),
            };
            requests += missing.len();
            fetched += fetch(&mut extents, &missing);
        }
        assert!(waits <= 3 && requests < 150, "{waits} {requests}");
        assert!(((64 << 20)..(66 << 20)).contains(&fetched), "{fetched}");
        assert!(extents.asked.held <= extents.asked.most);
    }

    #[test]
    fn what_is_told_is_joined_over_small_gaps_within_its_bounds() {
        let mut extents = Extents::new(1 << 30, 8 << 20);
        let pages = [0..4 * K, 8 * K..12 * K, 200 * K..204 * K];
        assert_eq!(extents.tell(&pages), [0..12 * K, 200 * K..204 * K]);
        assert_eq!(extents.tell(&pages), []);
        assert_eq!(extents.unread, 16 * K);
        let more = extents.tell(&[1 << 20..(4 << 20) + 1]);
        assert_eq!(more, [1 << 20..2 << 20, 2 << 20..3 << 20, 3 << 20..4 << 20, 4 << 20..(4 << 20) + 1]);
        // There is room for two more.
        assert_eq!(extents.tell(&[8 << 20..16 << 20]), [8 << 20..9 << 20, 9 << 20..10 << 20]);
        fetch(&mut extents, &more);
        assert!(matches!(extents.look(1 << 20), Look::Here(..)));
        assert_eq!(extents.unread, 16 * K + (4 << 20) + 1);
        // A failed one can be fetched again.
        extents.came(0, None);
        assert!(matches!(extents.look(0), Look::Nothing));
        assert_eq!(extents.tell(&pages[..1]), [0..4 * K]);
        assert_eq!(extents.tell(&[(1 << 30) - K..(1 << 30) + K]), []);
    }

    /// However it is used, no byte is fetched twice while it is here, and no more is held than allowed.
    #[test]
    fn any_use_keeps_to_the_bounds() {
        let mut extents = Extents::new(100 << 20, 4 << 20);
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..20_000 {
            let at = next(99 << 20);
            let size = 1 + next(300 * K);
            let missing = match next(3) {
                0 => extents.tell(&[at..at + size]),
                1 => match extents.look(at) {
                    Look::Nothing => extents.miss(at, at + size),
                    _ => Vec::new(),
                },
                _ => extents.ahead(at),
            };
            fetch(&mut extents, &missing);
            let (mut upto, mut sums) = (0, [0, 0]);
            for (start, e) in &extents.all {
                assert!(*start >= upto && e.end > *start);
                upto = e.end;
                sums[usize::from(e.why == Why::Told)] += e.end - start;
            }
            assert_eq!(sums, [extents.asked.held, extents.told.held]);
            assert!(
                extents.told.held <= extents.told.most + size
                    && extents.asked.held <= extents.asked.most + 2 * size + BLOCK
            );
        }
    }
}
