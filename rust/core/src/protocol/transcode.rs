//! JSON text as MessagePack: what somebody published who writes no MessagePack, for those who read nothing else.
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::signalr::msgpack::{write_array_head, write_int, write_map_head, write_str};

/// Appends a JSON text as MessagePack; numbers that no 64 bits hold become floats.
///
/// # Errors
/// It is no JSON, or has more than 127 containers inside one another; in words.
pub(crate) fn json_to_msgpack(json: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    Writer(out).deserialize(&mut reader).and_then(|()| reader.end()).map_err(|error| error.to_string())
}

/// Where a value goes.
struct Writer<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Writer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Writer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(0xc0);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.push(if value { 0xc3 } else { 0xc2 });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        write_int(self.0, value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => write_int(self.0, value),
            Err(_) => {
                self.0.push(0xcf);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.push(0xcb);
        self.0.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        write_str(self.0, value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let (mut count, mut body) = (0, Vec::new());
        while items.next_element_seed(Writer(&mut body))?.is_some() {
            count += 1;
        }
        write_array_head(self.0, count);
        self.0.append(&mut body);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<(), A::Error> {
        let (mut count, mut body) = (0, Vec::new());
        while pairs.next_key_seed(Writer(&mut body))?.is_some() {
            pairs.next_value_seed(Writer(&mut body))?;
            count += 1;
        }
        write_map_head(self.0, count);
        self.0.append(&mut body);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        json_to_msgpack(json, &mut out).map(|()| out)
    }

    #[test]
    fn each_kind_of_value_is_written() {
        assert_eq!(of("null"), Ok(vec![0xc0]));
        assert_eq!(of(r#"{"a":[1,-1,true],"ä":"x"}"#).unwrap(), b"\x82\xa1a\x93\x01\xff\xc3\xa2\xc3\xa4\xa1x");
        assert_eq!(of("18446744073709551615").unwrap(), [0xcf, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(of("1.5").unwrap(), [0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(of(&format!("[{}]", vec!["0"; 20].join(","))).unwrap()[..3], [0xdc, 0, 20]);
    }

    #[test]
    fn what_is_none_is_an_error() {
        for text in ["", "{", "1 2", "nul", &"[".repeat(200)] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
