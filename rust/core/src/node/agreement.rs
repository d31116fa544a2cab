//! What all workers of one server have to be set to alike.
use crate::settings::Settings;

/// The version of the program, the channels' promises and the bounds of what is published, in a form that is the same for the same ones.
///
/// Members with another one would keep other publications at the same positions: they are refused.
#[must_use]
pub fn agreement(version: &str, settings: &Settings) -> Box<[u8]> {
    let Settings { channels, snapshots, channels_max, publication_bytes_max, speaks_msgpack, .. } = settings;
    let all = (version, channels, snapshots, channels_max, publication_bytes_max, speaks_msgpack);
    format!("{all:?}").into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_differs_with_what_matters_and_with_nothing_else() {
        let settings = Settings::default();
        assert_eq!(agreement("1", &settings), agreement("1", &Settings { worker: 3, shards: 2, ..settings.clone() }));
        assert_ne!(agreement("1", &settings), agreement("2", &settings));
        assert_ne!(agreement("1", &settings), agreement("1", &Settings { channels_max: 7, ..settings }));
    }
}
