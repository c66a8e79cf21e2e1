//! Bytes that mean nothing, as many as chance says: against BREACH.
//!
//! Who can make a browser ask for pages that repeat what he sends, and sees how long the answers are on the wire, learns a
//! secret on the page letter by letter: a right guess is compressed better. A length that chance has a part in must be seen
//! many times before it tells one byte from the next: with these, some ten thousand times for each guess instead of once.
//! That is a hindrance and no cure; what helps for good is not to compress such a page, or a secret that is masked anew each time,
//! as Django's CSRF token is.

use std::cell::Cell;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// The most that an answer is made longer by.
pub(super) const MOST: usize = 127;

/// What they are; a few more than that, for formats that need some.
pub(super) const BYTES: [u8; MOST + 2] = [b' '; MOST + 2];

/// Drawn at once, because one draw costs as much as many.
const DRAWN: usize = 64;

/// How long it is this time. Nobody who has seen others can tell.
pub(super) fn length() -> usize {
    thread_local! {
        static LEFT: Cell<([u8; DRAWN], usize)> = const { Cell::new(([0; DRAWN], 0)) };
    }
    LEFT.with(|cell| {
        let (mut drawn, mut left) = cell.get();
        // Without random numbers TLS would not work either.
        if left == 0 && SystemRandom::new().fill(&mut drawn).is_ok() {
            left = DRAWN;
        }
        left = left.saturating_sub(1);
        cell.set((drawn, left));
        usize::from(drawn[left]) & MOST
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_up_and_none_much_more_often_than_others() {
        let mut counts = [0; MOST + 1];
        for _ in 0..128 * 100 {
            counts[length()] += 1;
        }
        // A hundred each are expected; ten deviations from it are impossible.
        assert!(counts.iter().all(|count| (1..200).contains(count)), "{counts:?}");
    }
}
