//! `bit`: operations on 32 bits.

use mlua::{Lua, Table, Value};

use super::library::{Fault, function, number_argument, one, optional_number};

/// The library.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    type Fold = fn(i32, i32) -> i32;
    let folds: [(&'static str, Fold); 3] = [
        ("band", |a, b| a & b),
        ("bor", |a, b| a | b),
        ("bxor", |a, b| a ^ b),
    ];
    for (name, fold) in folds {
        let run = move |lua: &Lua, args: &[Value]| {
            let mut result = argument(args, 1, name)?;
            for at in 2..=args.len() {
                result = fold(result, argument(args, at, name)?);
            }
            one(lua, f64::from(result))
        };
        table.raw_set(name, function(lua, run)?)?;
    }
    type Shift = fn(u32, u32) -> u32;
    let shifts: [(&'static str, Shift); 5] = [
        ("lshift", |a, n| a << n),
        ("rshift", |a, n| a >> n),
        ("arshift", |a, n| ((a as i32) >> n) as u32),
        ("rol", u32::rotate_left),
        ("ror", u32::rotate_right),
    ];
    for (name, shift) in shifts {
        let run = move |lua: &Lua, args: &[Value]| {
            let (number, by) = (argument(args, 1, name)?, argument(args, 2, name)?);
            one(lua, f64::from(shift(number as u32, by as u32 & 31) as i32))
        };
        table.raw_set(name, function(lua, run)?)?;
    }
    type Single = fn(i32) -> i32;
    let singles: [(&'static str, Single); 3] = [
        ("tobit", |a| a),
        ("bnot", |a| !a),
        ("bswap", i32::swap_bytes),
    ];
    for (name, single) in singles {
        let run =
            move |lua: &Lua, args: &[Value]| one(lua, f64::from(single(argument(args, 1, name)?)));
        table.raw_set(name, function(lua, run)?)?;
    }
    table.raw_set("tohex", function(lua, to_hex)?)?;
    Ok(table)
}

fn argument(args: &[Value], at: usize, function: &str) -> Result<i32, Fault> {
    Ok(wrapped(number_argument(args, at, function)?))
}

/// The number modulo 2^32, halves to even.
fn wrapped(number: f64) -> i32 {
    if !number.is_finite() {
        return 0;
    }
    number.round_ties_even().rem_euclid(4_294_967_296.0) as u32 as i32
}

fn to_hex(lua: &Lua, args: &[Value]) -> super::library::Outcome {
    let number = argument(args, 1, "tohex")? as u32;
    let digits = wrapped(optional_number(args, 2, "tohex", 8.0)?);
    let text = if digits < 0 {
        format!("{number:08X}")
    } else {
        format!("{number:08x}")
    };
    let count = (digits.unsigned_abs() as usize).min(8);
    one(lua, &text[8 - count..])
}
