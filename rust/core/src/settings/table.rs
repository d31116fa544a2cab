//! What a setting is: its name, what it may be, what it costs. Each stands once, as a row of a struct of settings.
//!
//! [`settings!`] makes of such rows the struct, its default and the rows that the table of all settings, the check of
//! ranges and the binding read. The wording of what a value must be is [`Kind`]'s, for Rust and Python alike.
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// A value of any setting, as a program gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Not set: without bound, or whatever the system has.
    Nothing,
    /// Yes or no.
    Truth(bool),
    /// A whole number that is not negative.
    Whole(u64),
    /// Any other number.
    Number(f64),
    /// A name.
    Text(Cow<'static, str>),
    /// A list of names.
    Texts(Vec<String>),
}

/// What values a setting takes. As text it is what stands behind "must be".
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Seconds, between two bounds.
    Seconds(f64, f64),
    /// Bytes, between two bounds.
    Bytes(u64, u64),
    /// A number of things, between two bounds.
    Whole(u64, u64),
    /// Permissions of a file, between two bounds.
    Permissions(u64, u64),
    /// Yes or no.
    Truth,
    /// One of these names.
    Choice(&'static [&'static str]),
    /// What the text says: there is a rule of its own for it.
    Other(&'static str),
}

/// One setting: a row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// What programs and files call it.
    pub name: &'static str,
    /// Under which heading it is told.
    pub group: &'static str,
    /// What it is, and in what unit, in one line.
    pub meaning: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// More about what it may be; mostly empty.
    pub limits: &'static str,
    /// What it is where nobody sets it.
    pub default: Value,
    /// More about that; mostly empty.
    pub usual: &'static str,
    /// The worst that it may cost, and what an attacker gains by a bad value.
    pub cost: &'static str,
}

/// A setting outside its range.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum SettingsError {
    /// A value that is not what the setting may be.
    #[error("{name} must be {}, not {value}", must(kind, *may_be_nothing))]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: Value,
        /// What is allowed, with its unit and bounds.
        kind: Kind,
        /// Whether nothing at all is allowed, too.
        may_be_nothing: bool,
    },
    /// One of a channel's.
    #[error("channel pattern {pattern:?}: {fault}")]
    Channel {
        /// The rule's pattern.
        pattern: String,
        /// What is wrong there.
        fault: Box<SettingsError>,
    },
    /// A name that no setting has.
    #[error("there is no setting {name:?}")]
    Unknown {
        /// As given.
        name: String,
    },
}

/// A day, the longest that most times may be.
const DAY_S: f64 = 86_400.0;
/// A time that something waits for.
pub(crate) const WAIT: Kind = Kind::Seconds(0.1, DAY_S);
/// How long something may be kept: a year at most.
pub(crate) const AGE: Kind = Kind::Seconds(0.001, 366.0 * DAY_S);
/// A size of what may be kept.
pub(crate) const KEPT: Kind = Kind::Bytes(1, 1 << 40);
/// The most that a number of things may be.
pub(crate) const COUNT_MAX: u64 = (1 << 31) - 1;

impl Kind {
    /// Whether `value` is of this kind and within its bounds.
    #[must_use]
    pub fn takes(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Seconds(min, max), Value::Number(number)) => (min..=max).contains(&number),
            (Self::Seconds(min, max), Value::Whole(number)) => (*min..=*max).contains(&(*number as f64)),
            (Self::Bytes(min, max) | Self::Whole(min, max) | Self::Permissions(min, max), Value::Whole(number)) => {
                (min..=max).contains(&number)
            }
            (Self::Truth, Value::Truth(_)) | (Self::Other(_), Value::Text(_) | Value::Texts(_)) => true,
            (Self::Choice(names), Value::Text(name)) => names.contains(&&**name),
            _ => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(min, max) if max.is_infinite() => write!(f, "a number of seconds, {} or more", Grouped(*min)),
            Self::Seconds(min, max) => write!(f, "a number of seconds, {} to {}", Grouped(*min), Grouped(*max)),
            Self::Bytes(min, max) => {
                write!(f, "a whole number of bytes, {} to {}", Grouped(*min as f64), Grouped(*max as f64))
            }
            Self::Whole(min, max) => write!(f, "a whole number, {} to {}", Grouped(*min as f64), Grouped(*max as f64)),
            Self::Permissions(min, max) => write!(f, "permissions, {min:#o} to {max:#o}"),
            Self::Truth => write!(f, "True or False"),
            Self::Choice(names) => match names.split_last() {
                Some((last, [])) => write!(f, "'{last}'"),
                Some((last, others)) => write!(f, "'{}' or '{last}'", others.join("', '")),
                None => Ok(()),
            },
            Self::Other(words) => f.write_str(words),
        }
    }
}

/// What a value must be, where nothing at all may be allowed, too.
fn must(kind: &Kind, may_be_nothing: bool) -> String {
    match kind {
        Kind::Choice(names) if may_be_nothing => format!("'{}' or None", names.join("', '")),
        _ if may_be_nothing => format!("{kind} or None"),
        _ => kind.to_string(),
    }
}

/// A number with its thousands set off, as in `86,400`.
struct Grouped(f64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index) % 3 == 0 {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        f.write_str(rest)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("None"),
            Self::Truth(truth) => f.write_str(if *truth { "True" } else { "False" }),
            Self::Whole(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "'{}'", text.escape_debug()),
            Self::Texts(texts) => write!(f, "{texts:?}"),
        }
    }
}

/// What a field of a struct of settings has in common with all others.
pub(crate) trait Field: Sized {
    /// What `value`, which is of the setting's kind, is here; `None` where this type cannot hold it.
    fn read(value: &Value) -> Option<Self>;
    /// The same the other way round.
    fn value(&self) -> Value;
}

/// A setting and where it stands in `S`.
pub(crate) struct Row<S> {
    pub(crate) setting: Setting,
    pub(crate) get: fn(&S) -> Value,
    pub(crate) set: fn(&mut S, &Value) -> bool,
}

impl<S: Default> Row<S> {
    /// The table's row.
    pub(crate) fn setting(&self) -> Setting {
        Setting { default: (self.get)(&S::default()), ..self.setting.clone() }
    }

    /// Whether nothing at all is allowed, too.
    fn may_be_nothing(&self) -> bool {
        (self.get)(&S::default()) == Value::Nothing
    }

    /// Whether `value` is of the setting's kind.
    fn takes(&self, value: &Value) -> bool {
        self.setting.kind.takes(value) || (*value == Value::Nothing && self.may_be_nothing())
    }

    /// Checks what `settings` has.
    pub(crate) fn check(&self, settings: &S) -> Result<(), SettingsError> {
        let value = (self.get)(settings);
        if self.takes(&value) { Ok(()) } else { Err(self.out_of_range(&value)) }
    }

    /// Has `settings` hold `value`.
    fn put(&self, settings: &mut S, value: &Value) -> Result<(), SettingsError> {
        // A name is no list of names, though both are told by words of their own.
        let is_held = self.takes(value) && (self.set)(settings, value);
        if is_held { Ok(()) } else { Err(self.out_of_range(value)) }
    }

    fn out_of_range(&self, value: &Value) -> SettingsError {
        let Setting { name, kind, .. } = self.setting;
        SettingsError::OutOfRange { name, value: value.clone(), kind, may_be_nothing: self.may_be_nothing() }
    }
}

/// Has the setting called `name` be `value`; `None`: no row has this name.
pub(crate) fn put<S: Default>(
    settings: &mut S,
    rows: &[Row<S>],
    name: &str,
    value: &Value,
) -> Option<Result<(), SettingsError>> {
    rows.iter().find(|row| row.setting.name == name).map(|row| row.put(settings, value))
}

macro_rules! numbers {
    ($($type:ty),*) => { $(
        impl Field for $type {
            fn read(value: &Value) -> Option<Self> {
                let Value::Whole(number) = value else { return None };
                Self::try_from(*number).ok()
            }

            fn value(&self) -> Value {
                u64::try_from(*self).map_or(Value::Number(*self as f64), Value::Whole)
            }
        }
    )* };
}

numbers!(usize, u64, u32, u16, i32);

/// Types that one variant of a value stands for, and those that have names.
macro_rules! held {
    ($($type:ty: $variant:ident($from:ident => $read:expr, $to:ident => $value:expr);)*) => { $(
        impl $crate::settings::table::Field for $type {
            fn read(value: &$crate::settings::table::Value) -> Option<Self> {
                let $crate::settings::table::Value::$variant($from) = value else { return None };
                $read
            }

            fn value(&self) -> $crate::settings::table::Value {
                let $to = self;
                $crate::settings::table::Value::$variant($value)
            }
        }
    )* };
}

held! {
    bool: Truth(truth => Some(*truth), truth => *truth);
    String: Text(text => Some(text.to_string()), text => text.clone().into());
    Vec<String>: Texts(texts => Some(texts.clone()), texts => texts.clone());
}

impl<T: Field> Field for Option<T> {
    fn read(value: &Value) -> Option<Self> {
        if *value == Value::Nothing { Some(None) } else { T::read(value).map(Some) }
    }

    fn value(&self) -> Value {
        self.as_ref().map_or(Value::Nothing, T::value)
    }
}

/// The longest time stands for no bound.
impl Field for Duration {
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(seconds) => Self::try_from_secs_f64(*seconds).ok(),
            Value::Whole(seconds) => Some(Self::from_secs(*seconds)),
            Value::Nothing => Some(Self::MAX),
            _ => None,
        }
    }

    fn value(&self) -> Value {
        if *self == Self::MAX { Value::Nothing } else { Value::Number(self.as_secs_f64()) }
    }
}

/// Makes a struct of settings, its default and its rows, each of which stands here once:
///
/// ```text
/// /// What it is, and in what unit.
/// field ["name of it, if another"] in "Heading": Type = default, kind [, "more of what it may be"]
///     [, default "more of that"], cost "the worst";
/// ```
///
/// What no program sets by name stands in `besides`.
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident prefixed $prefix:literal {
            $(
                $(#[doc = $meaning:literal])+
                $field:ident $($public:literal)? in $group:literal: $type:ty = $default:expr, $kind:expr
                $(, $limits:literal)? $(, default $usual:literal)?, cost $cost:literal;
            )+
        }
        besides {
            $( $(#[$other_attribute:meta])* $other:ident: $other_type:ty = $other_default:expr; )*
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $(
                $(#[doc = $meaning])+
                #[doc = concat!("\n\nDefault `", stringify!($default), "`. Worst cost: ", $cost, ".")]
                pub $field: $type,
            )+
            $( $(#[$other_attribute])* pub $other: $other_type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ $( $other: $other_default, )* }
            }
        }

        impl $name {
            pub(crate) const ROWS: &'static [$crate::settings::table::Row<Self>] = &[
                $( $crate::settings::table::Row {
                    setting: $crate::settings::table::Setting {
                        name: settings!(@name $prefix, $field $(, $public)?),
                        group: $group,
                        meaning: concat!($($meaning),+),
                        kind: $kind,
                        limits: concat!($($limits)?),
                        default: $crate::settings::table::Value::Nothing,
                        usual: concat!($($usual)?),
                        cost: $cost,
                    },
                    get: |settings| $crate::settings::table::Field::value(&settings.$field),
                    set: |settings, value| {
                        let read = $crate::settings::table::Field::read(value);
                        read.map(|read| settings.$field = read).is_some()
                    },
                }, )+
            ];
        }
    };
    (@name $prefix:literal, $field:ident) => { concat!($prefix, stringify!($field)) };
    (@name $prefix:literal, $field:ident, $public:literal) => { $public };
}

pub(crate) use {held, settings};
