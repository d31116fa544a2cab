//! Two formats in one pass, so that both have the same of an object whose Python code never says the same twice.

use super::error::Step;
use super::lower::Duration;
use super::walk::{Key, Sink};

/// Whatever comes goes to both; a path is told by the first.
pub(super) struct Pair<A, B>(pub(super) A, pub(super) B);

macro_rules! to_both {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {
        $(fn $name(&mut self, $($argument: $kind),*) {
            self.0.$name($($argument),*);
            self.1.$name($($argument),*);
        })*
    };
}

impl<A: Sink, B: Sink> Sink for Pair<A, B> {
    const WANTS_SECONDS: bool = A::WANTS_SECONDS || B::WANTS_SECONDS;

    to_both! {
        null();
        boolean(value: bool);
        int(value: i64);
        unsigned(value: u64);
        digits(digits: &[u8]);
        float(value: f64);
        text(text: &[u8]);
        binary(bytes: &[u8]);
        instant(text: &[u8], since: (i64, u32));
        decimal(digits: &[u8]);
        duration(duration: &Duration);
        array_start(count: usize);
        item(index: usize);
        array_end();
        map_start(count: usize);
        text_key(index: usize, text: &[u8]);
        other_key(index: usize, key: &Key<'_>);
        map_end();
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn step(&self, start: usize, end: usize) -> Step {
        self.0.step(start, end)
    }
}
