//! Values that a lab file writes in more than one way: one or several, a number or text.

#![forbid(unsafe_code)]

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{self, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor, value};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// One of something, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T = String>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one or a list of them")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<OneOrMany<T>, E> {
                let word: value::StrDeserializer<'_, E> = word.into_deserializer();
                T::deserialize(word).map(|one| OneOrMany(vec![one]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMany<T>, A::Error> {
                T::deserialize(value::MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(OneOrMany(items))
            }
        }
        deserializer.deserialize_any(Items(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// Declares a value that is written as text or as a bare number, and kept as text.
macro_rules! text_or_number {
    ($($(#[$doc:meta])* struct $name:ident: $kind:literal, $unit:literal, $title:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(pub String);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let unit = |number: String| Self(number + $unit);
                match Scalar::deserialize(deserializer)? {
                    Scalar::Text(text) => Ok(Self(text)),
                    Scalar::Whole(number) => Ok(unit(number.to_string())),
                    Scalar::Broken(number) if $kind == "number" => Ok(unit(number.to_string())),
                    Scalar::Broken(_) => Err(de::Error::custom("expected a whole number or text")),
                }
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schemars::json_schema!({ "title": $title, "anyOf": [{ "type": $kind }, { "type": "string" }] })
            }
        }
    )*};
}

text_or_number! {
    /// The value of a setting: a number, or the word that stands for one.
    struct SysctlSpec: "integer", "", "setting";
    /// A length of time: `500ms`, `5s`, `2m`, `5days`; a bare number counts seconds.
    struct TimeSpec: "number", "s", "time";
    /// A share: `10` or `10%`.
    struct PercentSpec: "number", "%", "share";
}

/// What stands for one value.
enum Scalar {
    Text(String),
    Whole(i128),
    Broken(f64),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Whole(number.into()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Whole(number.into()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar::Broken(number))
            }
        }
        deserializer.deserialize_any(Value)
    }
}
