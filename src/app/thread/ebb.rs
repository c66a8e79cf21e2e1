//! When a thread has much less to do than it had: the moment to give memory back.
//!
//! An allocator keeps what was freed for the next burst, and looks at it again only when it is used. After a thousand
//! idle connections that is tens of mebibytes which nobody would get back.

/// So much less is worth it.
const WORTH: usize = 64;
/// So many looks later the threads that read and wrote files have ended, and what they had allocated can be given back
/// as well: a quarter of a second each, and ten seconds without work.
const AGAIN: usize = 60;

/// The high-water mark of what a thread holds.
#[derive(Debug, Default)]
pub(super) struct Ebb {
    high: usize,
    /// Looks until memory is given back once more.
    again: Option<usize>,
}

impl Ebb {
    /// Told now and then how much there is. Whether that is half of what it was, or nothing at all after something, or was
    /// so a while ago.
    pub(super) fn has_fallen_to(&mut self, now: usize) -> bool {
        self.high = self.high.max(now);
        let has_fallen = self.high - now >= WORTH && now <= self.high / 2 || now == 0 && self.high >= WORTH / 4;
        if has_fallen {
            self.high = now;
            self.again = Some(AGAIN);
            return true;
        }
        self.again = self.again.map(|left| left - 1);
        let is_due = self.again == Some(0);
        self.again = self.again.filter(|left| *left > 0);
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ebb_is_told_once_when_there_is_half_of_what_there_was() {
        let mut ebb = Ebb::default();
        let told = [0, 300, 1000, 700, 501, 500, 400, 500, 251, 250, 190, 125, 100, 60, 10, 0, 0, 12, 0, 16, 0];
        let told: Vec<usize> = told.into_iter().filter(|now| ebb.has_fallen_to(*now)).collect();
        assert_eq!(told, [500, 250, 125, 60, 0, 0]);
    }

    #[test]
    fn and_once_more_a_while_later() {
        let mut ebb = Ebb::default();
        let told: Vec<usize> =
            (0..1000).filter(|look| ebb.has_fallen_to(if *look == 0 { 1000 } else { 400 })).collect();
        assert_eq!(told, [1, 1 + AGAIN]);
    }
}
