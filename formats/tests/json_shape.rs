//! The shape of the text, item by item, what may be left out of it, and what is refused with which words.
//!
//! The examples of `docs/formats/json.md` are rows here.

use dfsnap_formats::assemble::{Encoding, StreamBuilder, StreamCounters};
use dfsnap_formats::dataset::{Attributes, Entry, Item};
use dfsnap_formats::encoding::stream::StreamId;
use dfsnap_formats::json::{Buffer, Form, JsonError, JsonReader, Options, Writer, WriterOptions};
use dfsnap_formats::rdb::record::ModuleId;
use dfsnap_formats::rdb::{type_code, writer};
use dfsnap_formats::value::{
    HashField, HashValue, Idempotence, ListNode, ModuleValue, PendingEntry, SetMember, SetValue,
    SketchValue, StreamConsumer, StreamGroup, StreamProducer, Value, ZSetValue,
};

fn written(item: &Item, encodings: bool) -> String {
    let mut out = Buffer::new();
    let form = Form::Lines;
    Writer::new(WriterOptions { form, encodings }).item(item, &mut out);
    std::str::from_utf8(&out).unwrap().trim_end().to_owned()
}

fn read(text: &str) -> Result<Vec<Item>, JsonError> {
    let mut reader = JsonReader::new(text.as_bytes(), Options::default());
    let mut items = Vec::new();
    while let Some(item) = reader.next()? {
        items.push(item);
    }
    Ok(items)
}

fn entry(key: &[u8], value: Value) -> Item {
    Item::Entry(Entry::new(0, key, value))
}

/// The value of the one entry in `text`.
fn value(text: &str) -> Value {
    match read(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .pop()
    {
        Some(Item::Entry(entry)) => entry.value,
        other => panic!("{text}: {other:?}"),
    }
}

fn field(field: &[u8], value: &[u8], expire_at_ms: Option<i64>) -> HashField {
    HashField {
        field: field.to_vec(),
        value: value.to_vec(),
        expire_at_ms,
    }
}

fn member(member: &[u8], expire_at_ms: Option<i64>) -> SetMember {
    SetMember {
        member: member.to_vec(),
        expire_at_ms,
    }
}

fn stream() -> Value {
    let mut stream = StreamBuilder::default();
    let texts = ["temp", "20", "temp", "21"];
    stream
        .push(StreamId::new(1_526_919_030_474, 55), &texts)
        .unwrap();
    let group = StreamGroup {
        name: b"readers".to_vec(),
        last_id: StreamId::new(1_526_919_030_474, 55),
        entries_read: 1,
        pending: vec![PendingEntry {
            id: StreamId::new(1_526_919_030_474, 55),
            delivered_at_ms: 1_526_919_040_000,
            deliveries: 2,
            consumer: 0,
        }],
        consumers: vec![StreamConsumer {
            name: b"ann".to_vec(),
            seen_at_ms: 1_526_919_040_000,
            active_at_ms: -1,
        }],
    };
    let counters = StreamCounters {
        max_deleted_id: Some(StreamId::new(5, 0)),
        entries_added: Some(3),
        ..StreamCounters::default()
    };
    let known = Idempotence {
        duration_s: 100,
        entries_max: 10,
        producers: vec![StreamProducer {
            id: b"sensor".to_vec(),
            entries: vec![(b"n1".to_vec(), StreamId::new(1_526_919_030_474, 55))],
        }],
        added: 1,
        duplicates: 0,
    };
    stream
        .finish(&counters, vec![group], Some(Box::new(known)))
        .unwrap()
}

fn module_aux() -> Item {
    let module = ModuleId::new(b"test-type", 7);
    let mut raw = Vec::new();
    for number in [module.0, 2, 1, 0] {
        writer::len(&mut raw, number);
    }
    Item::ModuleAux {
        module,
        when: 1,
        raw,
    }
}

#[test]
fn every_kind_of_item_has_its_line() {
    let attributes = Attributes {
        expire_at_ms: Some(1_893_456_000_000),
        idle_s: Some(90),
        freq: Some(5),
        sticky: true,
        memcached_flags: Some(7),
        meta_classes: 1,
    };
    let text = Value::String("grün\n".into());
    let list = [&b"one"[..], b"2", b"\xff"].into_iter().collect();
    let members = vec![
        (b"ann".to_vec(), 17.5),
        (b"base64:".to_vec(), f64::INFINITY),
        (b"z".to_vec(), -0.0),
    ];
    let rows = [
        (
            "string with all attributes",
            Item::Entry(Entry {
                db: 3,
                key: b"k".to_vec(),
                attributes,
                value: text,
            }),
            r#"{"db":3,"key":"k","expire_at_ms":1893456000000,"idle_s":90,"freq":5,"sticky":true,"memcached_flags":7,"meta_classes":1,"type":"string","value":"grün\n"}"#,
        ),
        (
            "key that is no text",
            entry(b"\x00\xff", Value::String(b"\xff".to_vec())),
            r#"{"db":0,"key":{"base64":"AP8="},"type":"string","value":{"base64":"/w=="}}"#,
        ),
        (
            "list",
            entry(b"k", Value::List(vec![ListNode::Packed(list)])),
            r#"{"db":0,"key":"k","type":"list","value":["one","2",{"base64":"/w=="}]}"#,
        ),
        (
            "set with expiry",
            entry(
                b"k",
                Value::Set(SetValue::Expiring(vec![
                    member(b"a", None),
                    member(b"b", Some(9)),
                ])),
            ),
            r#"{"db":0,"key":"k","type":"set","value":["a",{"value":"b","expire_at_ms":9}]}"#,
        ),
        (
            "hash",
            entry(
                b"k",
                Value::Hash(HashValue::Fields(vec![
                    field(b"name", b"Ann", None),
                    field(b"\xff", b"\xfe", Some(9)),
                ])),
            ),
            r#"{"db":0,"key":"k","type":"hash","value":{"name":"Ann","base64:/w==":{"value":{"base64":"/g=="},"expire_at_ms":9}}}"#,
        ),
        (
            "sorted set",
            entry(b"k", Value::ZSet(ZSetValue::Members(members))),
            r#"{"db":0,"key":"k","type":"zset","value":{"ann":17.5,"base64:YmFzZTY0Og==":"inf","z":-0},"encoding":"skiplist"}"#,
        ),
        (
            "stream",
            entry(b"k", stream()),
            r#"{"db":0,"key":"k","type":"stream","value":{"entries":[{"id":"1526919030474-55","fields":["temp","20","temp","21"]}],"length":1,"last_id":"1526919030474-55","first_id":"1526919030474-55","max_deleted_id":"5-0","entries_added":3,"groups":[{"name":"readers","last_id":"1526919030474-55","entries_read":1,"consumers":[{"name":"ann","seen_at_ms":1526919040000,"active_at_ms":-1}],"pending":[{"id":"1526919030474-55","consumer":"ann","delivered_at_ms":1526919040000,"deliveries":2}]}],"idempotence":{"duration_s":100,"entries_max":10,"added":1,"duplicates":0,"producers":[{"id":"sensor","entries":[["n1","1526919030474-55"]]}]}}}"#,
        ),
        (
            "RedisJSON",
            entry(b"k", Value::Module(ModuleValue::of_json(br#"{"a": 1.0}"#))),
            r#"{"db":0,"key":"k","type":"module","module":"ReJSON-RL","version":3,"document":{"a": 1.0}}"#,
        ),
        (
            "RedisJSON that is no single line",
            entry(b"k", Value::Module(ModuleValue::of_json(b"[\n]"))),
            r#"{"db":0,"key":"k","type":"module","module":"ReJSON-RL","version":3,"value":{"base64":"gUXiUjjfkSwDBQNbCl0A"}}"#,
        ),
        (
            "document",
            entry(b"k", Value::Json(b"[1,2]".to_vec())),
            r#"{"db":0,"key":"k","type":"json","document":[1,2]}"#,
        ),
        (
            "text that is no document",
            entry(b"k", Value::Json(b"[1,".to_vec())),
            r#"{"db":0,"key":"k","type":"json","value":"[1,"}"#,
        ),
        (
            "sketch",
            entry(
                b"k",
                Value::Sketch(SketchValue {
                    type_code: type_code::TOP_K,
                    raw: b"abc".to_vec(),
                }),
            ),
            r#"{"db":0,"key":"k","type":"sketch","sketch":"top-k","value":{"base64":"YWJj"}}"#,
        ),
        (
            "aux",
            Item::Aux {
                name: b"redis-ver".to_vec(),
                value: b"7.0.15".to_vec(),
            },
            r#"{"aux":"redis-ver","value":"7.0.15"}"#,
        ),
        (
            "function",
            Item::Function {
                code: b"#!lua name=lib\n".to_vec(),
            },
            r##"{"function":"#!lua name=lib\n"}"##,
        ),
        (
            "module aux",
            module_aux(),
            r#"{"module_aux":"test-type","version":7,"when":1,"value":{"base64":"gbXrLfrcqXgHAgEA"}}"#,
        ),
    ];
    for (name, item, line) in rows {
        assert_eq!(written(&item, false), line, "{name}");
        let again = read(line).unwrap_or_else(|error| panic!("{name}: {error}"));
        // In the same form, when it is told.
        let told = written(&item, true);
        assert_eq!(read(&told).unwrap(), [item], "{name}");
        assert_eq!(again.len(), 1, "{name}");
    }
}

#[test]
fn a_document_holds_the_same_items() {
    let items = [
        entry(b"a", Value::String(b"1".to_vec())),
        entry(b"a", Value::String(b"2".to_vec())),
    ];
    let options = WriterOptions {
        form: Form::Document,
        encodings: false,
    };
    let mut document = Buffer::new();
    let mut json = Writer::new(options);
    items.iter().for_each(|item| json.item(item, &mut document));
    json.finish(&mut document);
    let want = "{\"format\":\"dfsnap\",\"version\":1,\"items\":[\n\
        {\"db\":0,\"key\":\"a\",\"type\":\"string\",\"value\":\"1\"},\n\
        {\"db\":0,\"key\":\"a\",\"type\":\"string\",\"value\":\"2\"}\n]}\n";
    assert_eq!(std::str::from_utf8(&document).unwrap(), want);
    assert_eq!(read(want).unwrap(), items);
    let mut empty = Buffer::new();
    Writer::new(options).finish(&mut empty);
    assert_eq!(read(std::str::from_utf8(&empty).unwrap()).unwrap(), []);
}

#[test]
fn people_may_leave_out_what_has_a_default() {
    let a = r#"{"key":"a","type":"string","value":"x"}"#;
    let b = r#"{ "value" : 17, "type" : "string", "key" : "b" }"#;
    let items = [
        entry(b"a", Value::String(b"x".to_vec())),
        entry(b"b", Value::String(b"17".to_vec())),
    ];
    let rows = [
        ("lines", format!("{a}\n{b}\n")),
        ("lines without end", format!("{a}\r\n\n  {b}")),
        ("no lines", format!("{a}{b}")),
        ("byte order mark", format!("\u{feff}{a}\n{b}\n")),
        ("array", format!("[{a},{b}]\n")),
        (
            "document",
            format!(r#"{{"format":"dfsnap","items":[{a} , {b}]}}"#),
        ),
        (
            "document with more",
            format!(
                r#"{{ "format": "dfsnap", "by": "me", "version": 1, "items": [{a},{b}], "count": 2 }}"#
            ),
        ),
    ];
    for (name, text) in rows {
        assert_eq!(
            read(&text).unwrap_or_else(|e| panic!("{name}: {e}")),
            items,
            "{name}"
        );
    }
    for (name, text) in [
        ("nothing", ""),
        ("blanks", " \n"),
        ("array", "[]"),
        ("document", r#"{"format":"dfsnap","version":1,"items":[]}"#),
    ] {
        assert_eq!(read(text).unwrap(), [], "{name}");
    }
    let Value::Stream(stream) = value(
        r#"{"key":"s","type":"stream","value":{"entries":[{"id":"1-1","fields":["f","v"]},{"id":"1-2","fields":["f","w"]}],
            "groups":[{"name":"g","pending":[{"id":"1-1","consumer":"c"}],"consumers":[{"name":"c"}]}]}}"#,
    ) else {
        panic!("no stream");
    };
    assert_eq!((stream.length, stream.entries_added), (2, 2));
    assert_eq!(
        (stream.first_id, stream.last_id),
        (StreamId::new(1, 1), StreamId::new(1, 2))
    );
    assert_eq!(
        (
            stream.groups[0].entries_read,
            stream.groups[0].pending[0].consumer
        ),
        (-1, 0)
    );
    assert_eq!(
        value(r#"{"key":"e","type":"stream","value":{}}"#).count(),
        0
    );
    let pieces =
        value(r#"{"key":"p","type":"string","value":{"pieces":["a",{"base64":"/w=="},"b"]}}"#);
    assert_eq!(pieces, Value::String(b"a\xffb".to_vec()));
}

#[test]
fn forms_are_those_that_servers_choose_unless_told() {
    let numbers = |count: u32| {
        let members = (0..count).map(|n| n.to_string());
        format!("[{}]", members.collect::<Vec<_>>().join(","))
    };
    let words = |count: u32, len: usize| {
        let members = (0..count).map(|n| format!("\"{n:x>len$}\""));
        format!("[{}]", members.collect::<Vec<_>>().join(","))
    };
    let pairs = |count: u32, value: &str| {
        let members = (0..count).map(|n| format!("\"m{n}\":{value}"));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    };
    let long = format!("\"{}\"", "v".repeat(65));
    let fits = format!("\"{}\"", "v".repeat(64));
    let rows = [
        ("few numbers", "set", "", numbers(512), Encoding::Intset),
        ("many numbers", "set", "", numbers(513), Encoding::Hashtable),
        ("few words", "set", "", words(128, 64), Encoding::Listpack),
        ("many words", "set", "", words(129, 4), Encoding::Hashtable),
        ("long words", "set", "", words(2, 65), Encoding::Hashtable),
        ("told", "set", "hashtable", numbers(3), Encoding::Hashtable),
        ("told", "set", "listpack", words(3, 100), Encoding::Listpack),
        (
            "members expire",
            "set",
            "",
            r#"[{"value":"a","expire_at_ms":5}]"#.into(),
            Encoding::DenseSet,
        ),
        (
            "few fields",
            "hash",
            "",
            pairs(512, "1"),
            Encoding::Listpack,
        ),
        (
            "many fields",
            "hash",
            "",
            pairs(513, "1"),
            Encoding::Hashtable,
        ),
        (
            "value fits",
            "hash",
            "",
            pairs(2, &fits),
            Encoding::Listpack,
        ),
        (
            "long value",
            "hash",
            "",
            pairs(2, &long),
            Encoding::Hashtable,
        ),
        (
            "fields expire",
            "hash",
            "",
            r#"{"a":{"value":1,"expire_at_ms":5},"b":2}"#.into(),
            Encoding::ListpackEx,
        ),
        (
            "expired long ago",
            "hash",
            "",
            r#"{"a":{"value":1,"expire_at_ms":-5}}"#.into(),
            Encoding::Hashtable,
        ),
        (
            "few scores",
            "zset",
            "",
            pairs(128, "1.5"),
            Encoding::Listpack,
        ),
        (
            "many scores",
            "zset",
            "",
            pairs(129, "1.5"),
            Encoding::Skiplist,
        ),
        (
            "told",
            "zset",
            "skiplist",
            pairs(2, "1"),
            Encoding::Skiplist,
        ),
    ];
    for (name, kind, told, elements, want) in rows {
        let told = match told {
            "" => String::new(),
            told => format!(r#""encoding":"{told}","#),
        };
        let text = format!(r#"{{"key":"k","type":"{kind}",{told}"value":{elements}}}"#);
        assert_eq!(Encoding::of(&value(&text)), Some(want), "{kind}, {name}");
    }
    let zset = value(r#"{"key":"k","type":"zset","value":{"c":2,"b":1,"a":"+inf","0":1}}"#);
    let Value::ZSet(zset) = zset else {
        panic!("no zset")
    };
    let members: Vec<_> = zset.members().map(|(member, _)| member.to_vec()).collect();
    assert_eq!(members, [b"0", b"b", b"c", b"a"]);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let rows = [
        (
            "no object",
            "x",
            "line 1, offset 0: item: wanted an object, found \"x\"",
        ),
        (
            "cut",
            r#"{"key":"k","#,
            "line 1, offset 0: item: wanted 12 bytes, 11 left",
        ),
        (
            "cut in a string",
            "{\"key\":\"k\n\"}",
            "line 1, offset 9: item: wanted no control character within a string, found 0x0a",
        ),
        (
            "nothing",
            "{}",
            "line 1, offset 2: item: wanted a member key, aux, function or module_aux, found \"none\"",
        ),
        (
            "no type",
            r#"{"key":"k"}"#,
            r#"line 1, offset 11: key "k": item: wanted a member type, found "none""#,
        ),
        (
            "unknown type",
            r#"{"key":"k","type":"tree","value":1}"#,
            r#"line 1, offset 18: key "k": type: wanted string, list, set, hash, zset, stream, module, json or sketch, found "\"tree\",\"value\":1}""#,
        ),
        (
            "misspelt",
            r#"{"key":"k","type":"string","value":"v","expire_at":5}"#,
            r#"line 1, offset 51: item: wanted a member that it may have, found "expire_at""#,
        ),
        (
            "member twice",
            r#"{"key":"k","key":"l"}"#,
            r#"line 1, offset 17: item: "key" is there twice"#,
        ),
        (
            "second line",
            "{\"key\":\"k\",\"type\":\"string\",\"value\":\"v\"}\n{\"key\":\"l\",\"type\":\"string\"}",
            r#"line 2, offset 67: key "l": item: wanted a member value, found "none""#,
        ),
        (
            "large db",
            r#"{"key":"k","db":4294967296,"type":"string","value":"v"}"#,
            r#"line 1, offset 16: key "k": db: wanted a number of 32 bits, found "4294967296,\"type\":\"strin""#,
        ),
        (
            "freq",
            r#"{"key":"k","freq":256,"type":"string","value":"v"}"#,
            r#"line 1, offset 18: key "k": freq: wanted a number up to 255, found "256,\"type\":\"string\",\"val""#,
        ),
        (
            "fraction",
            r#"{"key":"k","type":"list","value":[1.5]}"#,
            r#"line 1, offset 34: key "k": list element: wanted a string, or an integer, found "1.5]}""#,
        ),
        (
            "bad base64",
            r#"{"key":"k","type":"string","value":{"base64":"Zh=="}}"#,
            r#"line 1, offset 45: key "k": string: wanted base64 with padding, found "\"Zh==\"}}""#,
        ),
        (
            "bad name",
            r#"{"key":"k","type":"hash","value":{"base64:x":"v"}}"#,
            r#"line 1, offset 45: key "k": hash field: wanted base64 with padding behind base64:, found "base64:x""#,
        ),
        (
            "two forms",
            r#"{"key":"k","type":"set","value":[{"base64":"","value":"v"}]}"#,
            r#"line 1, offset 33: key "k": set member: wanted either base64, or pieces, or a value with its expiry, found "{\"base64\":\"\",\"value\":\"v\""#,
        ),
        (
            "empty list",
            r#"{"key":"k","type":"list","value":[]}"#,
            r#"line 1, offset 33: key "k": list: wanted at least one element, found 0"#,
        ),
        (
            "member twice",
            r#"{"key":"k","type":"set","value":["1",1]}"#,
            r#"line 1, offset 32: key "k": set: "1" is there twice"#,
        ),
        (
            "field twice",
            r#"{"key":"k","type":"hash","value":{"f":1,"f":2}}"#,
            r#"line 1, offset 33: key "k": hash: "f" is there twice"#,
        ),
        (
            "not a number",
            r#"{"key":"k","type":"zset","value":{"a":"nan"}}"#,
            r#"line 1, offset 38: key "k": zset score: wanted a number, "inf" or "-inf", found "\"nan\"}}""#,
        ),
        (
            "too large",
            r#"{"key":"k","type":"zset","value":{"a":1e999}}"#,
            r#"line 1, offset 38: key "k": zset score: wanted a number, "inf" or "-inf", found "1e999}}""#,
        ),
        (
            "wrong form",
            r#"{"key":"k","type":"set","encoding":"intset","value":["a"]}"#,
            r#"line 1, offset 52: key "k": set: wanted an integer, as in every intset, found "a""#,
        ),
        (
            "form of another type",
            r#"{"key":"k","type":"set","encoding":"skiplist","value":["a"]}"#,
            r#"line 1, offset 54: key "k": encoding: wanted intset, listpack, hashtable or dense_set, found "skiplist""#,
        ),
        (
            "id",
            r#"{"key":"k","type":"stream","value":{"last_id":"1-+2"}}"#,
            r#"line 1, offset 46: key "k": stream id: wanted two numbers, as in "1700000000000-0", found "\"1-+2\"}}""#,
        ),
        (
            "ids fall",
            r#"{"key":"k","type":"stream","value":{"entries":[{"id":"2-0","fields":[]},{"id":"2-0","fields":[]}]}}"#,
            r#"line 1, offset 72: key "k": stream entry, id: wanted an id above that of the entry before, found "2-0""#,
        ),
        (
            "odd",
            r#"{"key":"k","type":"stream","value":{"entries":[{"id":"2-0","fields":["f"]}]}}"#,
            r#"line 1, offset 47: key "k": stream entry: wanted a value for each field, found 1"#,
        ),
        (
            "nobody's",
            r#"{"key":"k","type":"stream","value":{"groups":[{"name":"g","pending":[{"id":"1-0","consumer":"c"}]}]}}"#,
            r#"line 1, offset 69: key "k": stream group, pending entry: wanted a consumer of the group that owns it, found "1-0""#,
        ),
        (
            "pending twice",
            r#"{"key":"k","type":"stream","value":{"groups":[{"name":"g","consumers":[{"name":"c"}],"pending":[{"id":"1-0","consumer":"c"},{"id":"1-0","consumer":"c"}]}]}}"#,
            r#"line 1, offset 35: key "k": stream group, pending entry: "1-0" is there twice"#,
        ),
        (
            "consumer twice",
            r#"{"key":"k","type":"stream","value":{"groups":[{"name":"g","consumers":[{"name":"c"},{"name":"c"}]}]}}"#,
            r#"line 1, offset 35: key "k": stream consumers: "c" is there twice"#,
        ),
        (
            "entries that are not",
            r#"{"key":"k","type":"stream","value":{"length":2}}"#,
            r#"line 1, offset 35: key "k": stream, entries: wanted 2, found 0"#,
        ),
        (
            "other module",
            r#"{"key":"k","type":"module","module":"ReJSON-RL","value":{"base64":"gbXrLfrcqXgHAA=="}}"#,
            r#"key "k": module value: wanted"#,
        ),
        (
            "cut module",
            r#"{"key":"k","type":"module","module":"test-type","version":7,"value":{"base64":"gbXrLfrcqXgH"}}"#,
            r#"line 1, offset 68: key "k": module opcode: wanted 1 bytes, 0 left"#,
        ),
        (
            "no such module",
            r#"{"key":"k","type":"module","module":"test","value":""}"#,
            r#"line 1, offset 36: key "k": module: wanted nine letters, digits, - or _, and a version up to 1023"#,
        ),
        (
            "other format",
            r#"{"format":"dump","items":[]}"#,
            r#"line 1, offset 10: document: wanted format "dfsnap", version 1, found "\"dump\",\"items\":[]}""#,
        ),
        (
            "later version",
            r#"{"format":"dfsnap","version":2,"items":[]}"#,
            r#"line 1, offset 29: document: wanted format "dfsnap", version 1, found "2,\"items\":[]}""#,
        ),
        (
            "no items",
            r#"{"format":"dfsnap"}"#,
            r#"line 1, offset 18: document: wanted a member "items", found "}""#,
        ),
        (
            "array cut",
            "[",
            "line 1, offset 1: item: wanted 1 bytes, 0 left",
        ),
        (
            "behind the end",
            "[] x",
            "line 1, offset 3: end: wanted the end of the text, found \"x\"",
        ),
    ];
    let mut findings = Vec::new();
    for (name, text, message) in rows {
        let error = read(text).expect_err(name).to_string();
        if !error.contains(message) {
            findings.push(format!("{name}:\n got  {error}\n want {message}"));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn an_abandoned_value_is_an_item_that_is_refused() {
    let values = [
        Value::String(b"v".to_vec()),
        value(r#"{"key":"k","type":"list","value":["a"]}"#),
        value(r#"{"key":"k","type":"zset","value":{"a":1}}"#),
        stream(),
        Value::Json(b"1".to_vec()),
    ];
    for value in values {
        let entry = Entry::new(0, b"k", value);
        let (mut json, mut out) = (Writer::new(WriterOptions::default()), Buffer::new());
        json.begin(&entry.head());
        json.abandon(&mut out);
        assert!(out.is_empty(), "nothing was known of it");
        json.begin(&entry.head());
        // The first part alone.
        let _ = entry.value.for_each_part(|part| {
            json.part(&part, &mut out);
            Err(())
        });
        json.abandon(&mut out);
        let text = std::str::from_utf8(&out).unwrap();
        assert!(text.ends_with(",\"damaged\":true}\n"), "{text}");
        let error = read(text).unwrap_err().to_string();
        let want = "key \"k\": item: wanted a value that its writer could read to its end";
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn items_behind_a_wrong_one_are_read_and_brackets_that_do_not_add_up_end_it() {
    let text =
        "{\"key\":\"a\"}\n{\"key\":\"b\",\"type\":\"string\",\"value\":\"v\"}\n]\n{\"key\":\"c\"}";
    let mut reader = JsonReader::new(text.as_bytes(), Options::default());
    assert!(matches!(
        reader.next(),
        Err(JsonError::Item { line: 1, .. })
    ));
    assert_eq!(
        reader.next().unwrap(),
        Some(entry(b"b", Value::String(b"v".to_vec())))
    );
    assert!(matches!(
        reader.next(),
        Err(JsonError::Text { line: 3, .. })
    ));
    assert!(matches!(reader.next(), Err(JsonError::Failed { .. })));
    let nested = format!(
        "{{\"key\":\"k\",\"type\":\"json\",\"document\":{}1",
        "[".repeat(100_000)
    );
    assert!(matches!(read(&nested), Err(JsonError::Text { .. })));
    let limit = Options {
        item_bytes_max: 1000,
    };
    let endless = format!("{{\"key\":\"{}\"}}", "k".repeat(200_000));
    let error = JsonReader::new(endless.as_bytes(), limit)
        .next()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("wanted an item within the limit of bytes"),
        "{error}"
    );
}
