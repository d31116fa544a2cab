//! What all workers of one server have to be set to alike.
use crate::settings::Settings;

/// The channels' promises and the bounds of what is published, in a form that is the same for the same ones.
///
/// Members with another one would keep other publications at the same positions: they are refused.
#[must_use]
pub fn agreement(settings: &Settings) -> Box<[u8]> {
    let Settings { channels, snapshots, channels_max, publication_bytes_max, speaks_msgpack, .. } = settings;
    let all = (env!("CARGO_PKG_VERSION"), channels, snapshots, channels_max, publication_bytes_max, speaks_msgpack);
    format!("{all:?}").into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_differs_with_what_matters_and_with_nothing_else() {
        let settings = Settings::default();
        assert_eq!(agreement(&settings), agreement(&Settings { worker: 3, shards: 2, ..settings.clone() }));
        assert_ne!(agreement(&settings), agreement(&Settings { channels_max: 7, ..settings }));
    }
}
