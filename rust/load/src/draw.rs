//! Which connection watches which channels, and from which address it comes. The same seed gives the same draw,
//! however many processes share the connections.

use std::net::Ipv4Addr;

/// SplitMix64: small, and good enough to draw with.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Draws channels by Zipf's law: channel `c` with a weight of `1 / (c + 1)^exponent`.
pub(crate) struct Draw {
    /// Sums of the weights up to each channel.
    sums: Vec<f64>,
    seed: u64,
}

impl Draw {
    /// For `channels` channels, at least 1; an `exponent` of 0 makes all equally likely.
    pub(crate) fn new(channels: u32, exponent: f64, seed: u64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=channels).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Self { sums: weights.collect(), seed }
    }

    /// Appends the `count` distinct channels of one connection, at most as many as there are, in ascending order.
    ///
    /// A channel that was drawn before is drawn again. That happens very often where the weights are steep and `count` is
    /// near the number of channels. Then the heaviest of those not drawn yet fill the rest.
    pub(crate) fn channels_of(&self, connection: u32, count: usize, out: &mut Vec<u32>) {
        let first = out.len();
        let mut random = Random(self.seed ^ u64::from(connection).wrapping_mul(0xd134_2543_de82_ef95));
        let total = self.sums.last().copied().unwrap_or(0.0);
        for _ in 0..count * 64 {
            if out.len() - first == count {
                break;
            }
            let point = random.unit() * total;
            let channel = self.sums.partition_point(|&sum| sum <= point).min(self.sums.len() - 1) as u32;
            if !out[first..].contains(&channel) {
                out.push(channel);
            }
        }
        for channel in 0..self.sums.len() as u32 {
            if out.len() - first == count {
                break;
            }
            if !out[first..].contains(&channel) {
                out.push(channel);
            }
        }
        out[first..].sort_unstable();
    }
}

/// The most source addresses: 127.0.0.2 to 127.0.0.254.
pub(crate) const SOURCES_MAX: u32 = 253;

/// Connections from one source address unless told otherwise: well under the 28,000 ports that an address has.
const CONNECTIONS_PER_SOURCE: u32 = 10_000;

/// How many source addresses `connections` need.
pub(crate) fn sources_for(connections: u32) -> u32 {
    connections.div_ceil(CONNECTIONS_PER_SOURCE).clamp(1, SOURCES_MAX)
}

/// The address that a connection comes from: never 127.0.0.1, which all other programs here use. Programs that have
/// networks of their own share no address.
pub(crate) fn source_of(connection: u32, sources: u32, network: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, network, 2 + (connection % sources) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drawn(draw: &Draw, connection: u32, count: usize) -> Vec<u32> {
        let mut channels = Vec::new();
        draw.channels_of(connection, count, &mut channels);
        channels
    }

    #[test]
    fn draw_with_the_same_seed_is_the_same() {
        let (one, two) = (Draw::new(1_000, 1.0, 7), Draw::new(1_000, 1.0, 7));
        let other = Draw::new(1_000, 1.0, 8);
        let all = |draw: &Draw| (0..100).map(|n| drawn(draw, n, 4)).collect::<Vec<_>>();
        assert_eq!(all(&one), all(&two));
        assert_ne!(all(&one), all(&other));
    }

    #[test]
    fn first_channel_is_drawn_about_twice_as_often_as_the_second() {
        let draw = Draw::new(100, 1.0, 1);
        let mut counts = [0_u32; 100];
        for connection in 0..20_000 {
            counts[drawn(&draw, connection, 1)[0] as usize] += 1;
        }
        let ratio = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
    }

    #[test]
    fn all_channels_are_drawn_when_as_many_are_asked_for() {
        let draw = Draw::new(50, 3.0, 1);
        assert_eq!(drawn(&draw, 0, 50), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn sources_begin_at_127_0_0_2_and_never_reach_the_broadcast_address() {
        assert_eq!((sources_for(1), sources_for(10_000), sources_for(10_001)), (1, 1, 2));
        assert_eq!(source_of(0, 2, 0), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(source_of(1, 2, 0), Ipv4Addr::new(127, 0, 0, 3));
        assert_eq!(source_of(2, 2, 0), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(source_of(SOURCES_MAX - 1, SOURCES_MAX, 0), Ipv4Addr::new(127, 0, 0, 254));
        assert_eq!(source_of(1, 2, 9), Ipv4Addr::new(127, 0, 9, 3));
        assert_eq!(sources_for(u32::MAX), SOURCES_MAX);
    }

    proptest! {
        #[test]
        fn channels_of_a_connection_are_distinct_sorted_and_in_range(
            channels in 1_u32..200, exponent in 0.0..3.0_f64, seed: u64, connection: u32, share in 0.0..1.0_f64,
        ) {
            let count = 1 + (share * f64::from(channels - 1)) as usize;
            let drawn = drawn(&Draw::new(channels, exponent, seed), connection, count);
            prop_assert_eq!(drawn.len(), count);
            prop_assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(drawn.iter().all(|&channel| channel < channels));
        }
    }
}
