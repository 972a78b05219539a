//! Scripts, which run in Lua 5.1, as in Redis.

use std::cell::RefCell;

use mlua::{Function, Lua, MultiValue, Value};

use super::store::{ModelReply, Store};

/// Runs scripts.
pub(super) struct ScriptRunner(Lua);

impl ScriptRunner {
    pub(super) fn new() -> Self {
        Self(Lua::new())
    }

    /// Runs a script on the data. `publish` is called with the channel and the message of each `PUBLISH`.
    pub(super) fn run(
        &self,
        text: &str,
        keys: &[Vec<u8>],
        arguments: &[Vec<u8>],
        store: &mut Store,
        publish: &mut dyn FnMut(&[u8], &[u8]) -> usize,
    ) -> ModelReply {
        let lua = &self.0;
        let context = RefCell::new((store, publish));
        let result = lua.scope(|scope| {
            let call = scope.create_function(|lua, arguments: MultiValue| {
                let command: Vec<Vec<u8>> = arguments.into_iter().map(argument).collect();
                let (store, publish) = &mut *context.borrow_mut();
                let reply = if command[0] == b"PUBLISH" {
                    ModelReply::Integer(i64::try_from(publish(&command[1], &command[2])).unwrap())
                } else {
                    store.run(&command).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&command[0])))
                };
                to_lua(lua, reply)
            })?;
            let redis = lua.create_table()?;
            redis.set("call", call)?;
            let globals = lua.globals();
            globals.set("redis", redis)?;
            for (name, values) in [("KEYS", keys), ("ARGV", arguments)] {
                let values: mlua::Result<Vec<_>> = values.iter().map(|value| lua.create_string(value)).collect();
                globals.set(name, values?)?;
            }
            let function: Function = lua.load(text).into_function()?;
            function.call::<Value>(())
        });
        match result {
            Ok(value) => from_lua(value),
            Err(error) => {
                let text = error.to_string();
                let code = text.lines().next().unwrap_or_default().trim_start_matches("runtime error: ");
                ModelReply::Error(code.to_owned())
            }
        }
    }
}

fn argument(value: Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Integer(number) => number.to_string().into_bytes(),
        Value::Number(number) => number.to_string().into_bytes(),
        other => panic!("an argument of a command is {other:?}"),
    }
}

fn to_lua(lua: &Lua, reply: ModelReply) -> mlua::Result<Value> {
    Ok(match reply {
        ModelReply::Nil => Value::Boolean(false),
        ModelReply::Integer(number) => Value::Integer(number),
        ModelReply::Bytes(bytes) => Value::String(lua.create_string(bytes)?),
        ModelReply::Status(status) => {
            let table = lua.create_table()?;
            table.set("ok", status)?;
            Value::Table(table)
        }
        ModelReply::Array(parts) => {
            let parts: mlua::Result<Vec<_>> = parts.into_iter().map(|part| to_lua(lua, part)).collect();
            Value::Table(lua.create_sequence_from(parts?)?)
        }
        ModelReply::Error(text) => return Err(mlua::Error::RuntimeError(text)),
    })
}

/// Numbers lose their fraction, and an array ends before its first nil, as in Redis.
fn from_lua(value: Value) -> ModelReply {
    match value {
        Value::Nil | Value::Boolean(false) => ModelReply::Nil,
        Value::Boolean(true) => ModelReply::Integer(1),
        Value::Integer(number) => ModelReply::Integer(number),
        #[expect(clippy::cast_possible_truncation, reason = "as Redis does")]
        Value::Number(number) => ModelReply::Integer(number as i64),
        Value::String(text) => ModelReply::Bytes(text.as_bytes().to_vec()),
        Value::Table(table) => {
            ModelReply::Array(table.sequence_values::<Value>().map(|part| from_lua(part.unwrap())).collect())
        }
        other => panic!("a script returns {other:?}"),
    }
}
