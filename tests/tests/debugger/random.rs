//! Random scripts and random requests of the debugger, for both servers.

use fastrand::Rng;

/// A random script. It ends by itself.
pub fn script(random: &mut Rng) -> String {
    let mut lines = vec!["local v1, v2, v3 = 1, {}, 'x'".to_owned()];
    for _ in 0..2 {
        block(random, 0, &mut lines);
    }
    lines.push(format!("return {}", expression(random, 0)));
    lines.join("\n")
}

fn one_of<'a>(random: &mut Rng, choices: &[&'a str]) -> &'a str {
    choices[random.usize(..choices.len())]
}

fn expression(random: &mut Rng, depth: usize) -> String {
    let inner = |random: &mut Rng| expression(random, depth + 1);
    match random.u8(..14) {
        0 => one_of(
            random,
            &[
                "0",
                "1",
                "-1",
                "3.5",
                "1e10",
                "123456789",
                "0.1",
                "1e-9",
                "2^53",
                "1/0",
            ],
        )
        .to_owned(),
        1 => one_of(
            random,
            &[
                "'a'", "'b c'", r"'x\n'", r"'\0z'", r#"'q"'"#, "''", r"'\255'",
            ],
        )
        .to_owned(),
        2 => one_of(random, &["true", "false", "nil"]).to_owned(),
        3 if depth < 3 => {
            let items: Vec<_> = (0..random.usize(..4)).map(|_| inner(random)).collect();
            format!("{{{}}}", items.join(","))
        }
        4 if depth < 3 => format!("{{a={},b={}}}", inner(random), inner(random)),
        5 => one_of(
            random,
            &["v1", "v2", "v3", "KEYS[1]", "ARGV[1]", "#ARGV", "KEYS"],
        )
        .to_owned(),
        6 if depth < 3 => {
            let operator = one_of(random, &["+", "..", "==", "and", "or", "*", "<"]);
            format!("({} {operator} {})", inner(random), inner(random))
        }
        7 => format!(
            "{}({})",
            one_of(random, &["tostring", "type", "tonumber", "cjson.encode"]),
            inner(random)
        ),
        8 => call(random, "call"),
        9 => call(random, "pcall"),
        10 => one_of(
            random,
            &[
                "redis.breakpoint()",
                "redis.sha1hex('x')",
                "redis.status_reply('s')",
                "redis.error_reply('e x')",
                "string.rep('ab',200)",
                "unpack({1,2})",
            ],
        )
        .to_owned(),
        _ => one_of(random, &["v1", "v2", "1", "'s'"]).to_owned(),
    }
}

/// Commands whose replies are the same in all versions.
const COMMANDS: [&str; 22] = [
    "'get','k'",
    "'set','k','1'",
    "'set','k','y z'",
    "'incr','k'",
    "'lpush','l','a','b'",
    "'lrange','l','0','-1'",
    "'hset','h','f','v'",
    "'hgetall','h'",
    "'del','k','l','h'",
    "'nosuch'",
    "'set','k'",
    "'zadd','z','1.5','m'",
    "'zrange','z','0','-1','withscores'",
    "'type','k'",
    "'mget','k','q'",
    "'ping'",
    r"'echo','a\nb'",
    "'smembers','s'",
    "'publish','c','m'",
    "'dbsize'",
    "'eval','return 1','0'",
    "'select','0'",
];

fn call(random: &mut Rng, function: &str) -> String {
    format!("redis.{function}({})", one_of(random, &COMMANDS))
}

fn block(random: &mut Rng, depth: usize, lines: &mut Vec<String>) {
    let is_deep = depth == 3;
    for _ in 0..random.usize(1..4) {
        let value = expression(random, 0);
        let name = one_of(random, &["v1", "v2", "v3"]);
        let (open, close) = match random.u8(..14) {
            0 if !is_deep => (format!("for i = 1, {} do", random.u8(..4)), "end".into()),
            1 if !is_deep => (format!("if {value} then"), "end".to_owned()),
            2 if !is_deep => (
                format!("local function f{depth}(a, b, ...)"),
                format!("  return {value}\nend\n{name} = f{depth}(1, 's')"),
            ),
            3 if !is_deep => (format!("{name} = pcall(function()"), "end)".to_owned()),
            4 if !is_deep => (
                format!("for k, v in pairs({{{value}}}) do"),
                "end".to_owned(),
            ),
            5 if !is_deep => (
                "local co = coroutine.create(function(a)".to_owned(),
                format!(
                    "  coroutine.yield(a)\nend)\n{name} = coroutine.resume(co, {value})\ncoroutine.resume(co)"
                ),
            ),
            6 => {
                lines.push(format!("redis.debug({value}, {name})"));
                continue;
            }
            7 => {
                lines.push("redis.breakpoint()".to_owned());
                continue;
            }
            8 => {
                lines.push(format!("local w = {value}"));
                continue;
            }
            9 if random.u8(..5) == 0 => {
                let fault = one_of(random, &["error('boom')", "error({err='E x'})", "gg = 1"]);
                lines.push(fault.to_owned());
                continue;
            }
            _ => {
                lines.push(format!("{name} = {value}"));
                continue;
            }
        };
        lines.extend(open.lines().map(str::to_owned));
        block(random, depth + 1, lines);
        lines.extend(close.lines().map(str::to_owned));
    }
}

/// A random request in a session over so many lines. It is none that ends redis-server (an error that is a table, evaluated), and
/// none that has it forget other breakpoints (one of several removed).
pub fn request(random: &mut Rng, lines: usize) -> String {
    let line = random.usize(..lines + 3);
    match random.u8(..22) {
        0..8 => one_of(random, &["s", "step", "n", "next", "S"]).to_owned(),
        8 => "c".to_owned(),
        9 => "p".to_owned(),
        10 | 11 => {
            let name = one_of(
                random,
                &[
                    "v1", "v2", "v3", "w", "a", "b", "i", "k", "v", "co", "arg", "KEYS", "f0",
                ],
            );
            format!("p {name}")
        }
        12 => format!("b {line}"),
        13 => one_of(random, &["b", "t", "w", "b 0", "b x"]).to_owned(),
        14 => format!("l {line} {}", random.u8(..4)),
        15 | 16 => format!(
            "r {}",
            one_of(
                random,
                &[
                    "get k",
                    "set k v",
                    "lpush k 1",
                    "nosuch",
                    "lrange l 0 -1",
                    "hgetall h",
                    "dbsize"
                ]
            )
        ),
        17 => one_of(random, &["m", "m 100", "m 0", "maxlen 61", "m x"]).to_owned(),
        18 => format!(
            "e {}",
            one_of(
                random,
                &["v1", "1+1", "KEYS", "x = 1", "#ARGV", "{1,{2}}", "nil", "("]
            )
        ),
        19 => one_of(random, &["h", "foo", "r", "p a b", "e"]).to_owned(),
        20 if random.u8(..5) == 0 => "a".to_owned(),
        _ => "s".to_owned(),
    }
}
