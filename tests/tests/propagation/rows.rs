//! The rows: sessions, and what ours sends where that is not what 7.0 sends.
//!
//! On purpose different: a consumer that XREADGROUP creates is told of (7.0 forgets it), and so is how far the group has read (as in
//! 7.2); `MINID ~` names the first entry that is there (7.0 may name one that is deleted); `LMOVE` after a wait has the words in one
//! spelling.

use super::Row;

const fn row(name: &'static str, session: &'static str) -> Row {
    Row {
        name,
        session,
        ours: None,
    }
}

const fn differs(name: &'static str, session: &'static str, ours: &'static str) -> Row {
    Row {
        name,
        session,
        ours: Some(ours),
    }
}

pub const STRINGS: &[Row] = &[
    row("SET as typed", "set k v\nSeT k w\nSET k x KEEPTTL"),
    row(
        "SET EX",
        "SET k v EX 100\nSET k v2 XX EX 200\nSET k2 v NX EX 100\nSET k2 v NX EX 100",
    ),
    row(
        "SET PX",
        "SET k v PX 100000\nSET k v2 PX 200000 GET\nSET k v3 XX GET PX 100000",
    ),
    row(
        "SET EXAT and PXAT",
        "SET k v EXAT {s:+100}\nSET k w PXAT {ms+200}\nSET k x NX PXAT {ms+200}\nSET k x XX GET PXAT {ms+200}",
    ),
    row(
        "SET GET",
        "SET a 1 GET\nSET a 2 GET\nSET a 3 XX GET\nSET a 4 XX KEEPTTL GET\nSET a 5 NX GET\nSET b 5 NX GET\nSET a 6 GET KEEPTTL",
    ),
    row("SET that does nothing", "SET k v XX\nSET k v\nSET k w NX"),
    row("SETNX", "SETNX k v\nSETNX k w"),
    row(
        "SETEX and PSETEX",
        "SETEX k 100 v\nPSETEX k 200000 v\nsetex k 100 w",
    ),
    row(
        "MSET and MSETNX",
        "MSET a 1 b 2 c 3\nMSETNX a 1 d 2\nMSETNX d 1 e 2\nMSET a 1",
    ),
    row(
        "GETSET and GETDEL",
        "GETSET k v\nGETSET k w\nGETDEL k\nGETDEL k",
    ),
    row(
        "GETEX",
        "GETEX k EX 100\nSET k v\nGETEX k\nGETEX k EX 100\nGETEX k PX 200000\nGETEX k EXAT {s:+100}\nGETEX k PXAT {ms+100}\nGETEX k PERSIST\nGETEX k PERSIST",
    ),
    row(
        "GETEX in the past",
        "SET k v\nGETEX k PXAT 1\nSET k v\nGETEX k EXAT 1",
    ),
    row(
        "counters",
        "INCR n\nINCRBY n 5\nDECR n\nDECRBY n 3\nincr n\nINCRBY n 0\nSET s x\nINCR s",
    ),
    row(
        "INCRBYFLOAT",
        "INCRBYFLOAT f 1.5\nINCRBYFLOAT f 1e2\nPEXPIRE f 100000\nINCRBYFLOAT f -0.25",
    ),
    row(
        "APPEND and SETRANGE",
        "APPEND k abc\nAPPEND k ''\nSETRANGE k 1 X\nSETRANGE k 1 ''\nSETRANGE n 3 ''",
    ),
    row(
        "bits",
        "SETBIT b 3 1\nSETBIT b 3 1\nBITFIELD b SET u8 0 7 INCRBY u8 8 1\nBITFIELD b GET u8 0\nBITFIELD b SET u8 0 7\nBITFIELD_RO b GET u8 0\nBITFIELD b OVERFLOW FAIL INCRBY u2 0 100",
    ),
    row(
        "BITOP",
        "SET a x\nBITOP NOT d a\nBITOP AND d none none\nBITOP AND d none none",
    ),
    row(
        "HyperLogLog",
        "PFADD h a b\nPFADD h a\nPFCOUNT h\nPFCOUNT h\nPFADD h2\nPFADD h2\nPFMERGE h3 h h2\nPFMERGE h3 h\nPFCOUNT h h2\nPFADD h c\nPFCOUNT h",
    ),
];

pub const KEYS: &[Row] = &[
    row(
        "DEL and UNLINK",
        "MSET a 1 b 2 c 3 d 4\nDEL a none\nDEL none\nUNLINK b c none2\nUNLINK none\ndel d",
    ),
    row(
        "EXPIRE and its kin",
        "SET k v\nEXPIRE k 100\nPEXPIRE k 200000\nEXPIREAT k {s:+100}\nPEXPIREAT k {ms+200}\nEXPIRE none 100",
    ),
    row(
        "EXPIRE with conditions",
        "SET k v\nEXPIRE k 100 NX\nEXPIRE k 200 NX\nEXPIRE k 200 XX\nEXPIRE k 300 GT\nEXPIRE k 200 GT\nEXPIRE k 100 LT\nPEXPIRE k 200000 gt\nPEXPIREAT k {ms+300} XX",
    ),
    row(
        "EXPIRE in the past",
        "SET k v\nEXPIRE k -1\nSET k v\nPEXPIRE k 0\nSET k v\nEXPIREAT k 1\nSET k v\nPEXPIREAT k 1\nPEXPIREAT k 1",
    ),
    row("PERSIST", "SET k v EX 100\nPERSIST k\nPERSIST k"),
    row(
        "RENAME",
        "SET a 1\nRENAME a b\nRENAME none c\nRENAME b b\nSET c 1\nRENAMENX b c\nRENAMENX b d",
    ),
    row(
        "COPY and MOVE",
        "SET a 1\nCOPY a b\nCOPY a b\nCOPY a b REPLACE\nCOPY a a2 DB 3\nMOVE a 1\nMOVE none 1\nSET a 2\nMOVE a 1",
    ),
    row(
        "RESTORE",
        "SET k v\nRESTORE a 0 {dump:k}\nRESTORE a 0 {dump:k}\nRESTORE a 100000 {dump:k} REPLACE\nRESTORE b {ms+100} {dump:k} ABSTTL\nRESTORE c 100000 {dump:k} FREQ 5\nRESTORE d 100000 {dump:k} IDLETIME 5 REPLACE\nRESTORE e 0 {dump:k} IDLETIME 5",
    ),
    row(
        "RESTORE in the past",
        "SET k v\nRESTORE a 1 {dump:k} ABSTTL\nRESTORE k 1 {dump:k} ABSTTL REPLACE",
    ),
    row(
        "TOUCH and OBJECT say nothing",
        "SET k v\nTOUCH k\nOBJECT ENCODING k\nTTL k\nTYPE k",
    ),
    row(
        "SORT STORE",
        "RPUSH l 3 1 2\nSORT l\nSORT l STORE d\nSORT none STORE d\nSORT none STORE d\nSORT_RO l",
    ),
    row(
        "flushes",
        "FLUSHDB\nFLUSHALL\nFLUSHDB ASYNC\nFLUSHALL SYNC\nSET k v\nflushall",
    ),
    row(
        "SWAPDB",
        "SWAPDB 0 1\nSWAPDB 0 0\nSET a 1\nSWAPDB 0 1\nSET b 1",
    ),
    row(
        "databases",
        "SELECT 3\nSET a 1\nSELECT 0\nSET a 1\nSELECT 3\nGET a\nSELECT 0\nSET b 1\n2: SELECT 5\n2: SET c 1\nSET d 1",
    ),
    row(
        "PUBLISH",
        "PUBLISH c m\nSELECT 4\nPUBLISH c m\nSPUBLISH c m\nSELECT 0",
    ),
    row(
        "what is about the server",
        "CONFIG SET maxmemory-samples 5\nCLIENT SETNAME me\nSCRIPT LOAD 'return 1'\nDEBUG POPULATE 3\nACL SETUSER someone\nACL DELUSER someone\nSCRIPT FLUSH\nMEMORY PURGE\nLATENCY RESET",
    ),
    row("inline", "SET k v"),
];

pub const COLLECTIONS: &[Row] = &[
    row(
        "lists",
        "LPUSH l a b\nRPUSH l c\nLPUSHX l d\nRPUSHX none d\nLINSERT l BEFORE a x\nLINSERT l AFTER none x\nLSET l 0 y\nLSET l 0 y\nLREM l 1 none\nLREM l 1 a\nLTRIM l 0 100\nLTRIM l 0 1\nLPOP l\nRPOP l 5\nLPOP l\nLPOP l 2",
    ),
    row(
        "LPOP of none and zero",
        "RPUSH l a b c\nLPOP l 0\nLPOP l 2\nRPOP l 1",
    ),
    row(
        "LMOVE",
        "RPUSH a 1 2\nLMOVE a b LEFT RIGHT\nLMOVE none b LEFT RIGHT\nRPOPLPUSH a b\nRPOPLPUSH a b\nLMOVE b b RIGHT LEFT\nlmove b c left right",
    ),
    row(
        "LMPOP",
        "RPUSH a 1 2 3 4 5\nLMPOP 2 none a LEFT COUNT 2\nLMPOP 1 a RIGHT\nLMPOP 1 a RIGHT COUNT 100\nLMPOP 1 a LEFT",
    ),
    row(
        "blocking that does not wait",
        "RPUSH a 1 2 3 4 5 6 7 8\nBLPOP a 0\nBRPOP none a 0\nBLMOVE a b LEFT RIGHT 0\nBRPOPLPUSH a b 0\nBLMPOP 0 2 none a LEFT COUNT 2\nBLMPOP 0 1 a RIGHT\nZADD z 1 a 2 b 3 c 4 d 5 e\nBZPOPMIN z 0\nBZPOPMAX none z 0\nBZMPOP 0 1 z MIN COUNT 2",
    ),
    row("BLPOP served", "b: BLPOP a c 0\nRPUSH c 1 2"),
    row("BRPOP served", "b: BRPOP a 0\nRPUSH a 1 2 3"),
    differs(
        "BLMOVE served",
        "b: BLMOVE a b LEFT RIGHT 0\nRPUSH a 1",
        "RPUSH a 1\nLMOVE a b LEFT RIGHT",
    ),
    row(
        "BLMOVE served, other words",
        "b: BLMOVE a b right left 0\nRPUSH a 1 2",
    ),
    row("BRPOPLPUSH served", "b: BRPOPLPUSH a b 0\nRPUSH a 1"),
    row(
        "BLMPOP served",
        "b: BLMPOP 0 2 a b LEFT COUNT 2\nRPUSH b 1 2 3",
    ),
    row("BZPOPMIN served", "b: BZPOPMIN z 0\nZADD z 1 a 2 b"),
    row("BZPOPMAX served", "b: BZPOPMAX y z 0\nZADD z 1 a 2 b"),
    row(
        "BZMPOP served",
        "b: BZMPOP 0 1 z MAX COUNT 5\nZADD z 1 a 2 b",
    ),
    row(
        "served by a block",
        "b: BLPOP l 0\nMULTI\nRPUSH l 1\nRPUSH l 2\nEXEC",
    ),
    row(
        "served by a script",
        "b: BLPOP l 0\nEVAL 'redis.call(\"rpush\", KEYS[1], 1) redis.call(\"set\", \"x\", 1)' 2 l x",
    ),
    row("served by RENAME", "b: BLPOP l 0\nRPUSH m 1\nRENAME m l"),
    row(
        "served in a block that takes it away",
        "b: BLPOP l 0\nMULTI\nRPUSH l 1\nDEL l\nEXEC\nRPUSH l 2",
    ),
    row(
        "in MULTI a blocking command does not wait",
        "RPUSH l 1\nMULTI\nBLPOP l 0\nBLPOP l 0\nEXEC",
    ),
    row(
        "hashes",
        "HSET h a 1 b 2\nHSET h a 1\nHMSET h a 1\nHSETNX h a 2\nHSETNX h c 2\nHINCRBY h n 5\nHINCRBYFLOAT h f 1.5\nHINCRBYFLOAT h f 1\nHDEL h none\nHDEL h a b none\nHDEL h c n f",
    ),
    row(
        "sets",
        "SADD s a b\nSADD s a\nSADD s a c\nSREM s none\nSREM s a none\nSMOVE s t b\nSMOVE s t none\nSMOVE t t b",
    ),
    row(
        "SPOP",
        "SADD s a\nSPOP s\nSADD s a\nSPOP s 1\nSADD s a\nSPOP s 5\nSPOP s\nSPOP s 3",
    ),
    row("SPOP of none", "SADD s a b\nSPOP s 0"),
    row(
        "sets stored",
        "SADD a 1 2 3\nSADD b 2 3 4\nSUNIONSTORE d a b\nSINTERSTORE d a b\nSDIFFSTORE d a b\nSINTERSTORE d a none\nSINTERSTORE d a none\nSDIFFSTORE a a",
    ),
    row(
        "sorted sets",
        "ZADD z 1 a 2 b\nZADD z 1 a\nZADD z XX 5 none\nZADD z NX 5 a\nZADD z GT CH 3 a\nZADD z LT 9 a\nZADD z INCR 1 a\nZADD z NX INCR 1 a\nZINCRBY z 1.5 b\nZREM z none\nZREM z a none\nZINCRBY z 0 b",
    ),
    row(
        "sorted sets removed",
        "ZADD z 1 a 2 b 3 c 4 d 5 e 6 f\nZREMRANGEBYRANK z 0 0\nZREMRANGEBYRANK z 90 99\nZREMRANGEBYSCORE z 2 2\nZREMRANGEBYSCORE z 90 99\nZREMRANGEBYLEX z [c [c\nZPOPMIN z\nZPOPMAX z 1\nZPOPMIN z 9\nZPOPMIN z\nZPOPMAX z 3",
    ),
    row(
        "ZMPOP",
        "ZADD z 1 a 2 b 3 c 4 d\nZMPOP 2 none z MIN COUNT 2\nZMPOP 1 z MAX\nZMPOP 1 z MAX COUNT 100\nZMPOP 1 z MIN",
    ),
    row(
        "sorted sets stored",
        "ZADD a 1 x 2 y\nZADD b 3 y 4 z\nZUNIONSTORE d 2 a b\nZINTERSTORE d 2 a b WEIGHTS 2 3 AGGREGATE MAX\nZDIFFSTORE d 2 a b\nZRANGESTORE d a 0 -1\nZRANGESTORE d none 0 -1\nZRANGESTORE d none 0 -1\nZINTERSTORE d 2 a none",
    ),
    row(
        "geo",
        "GEOADD g 13.361389 38.115556 a\nGEOADD g NX 15.087269 37.502669 b\nGEOADD g CH XX 15.087269 37.502669 a\nGEOADD g 13.361389 38.115556 a\nGEOADD g 13.361389 38.115556 a\nGEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km\nGEOSEARCHSTORE d g FROMLONLAT 80 37 BYRADIUS 1 km\nGEOSEARCHSTORE d g FROMLONLAT 80 37 BYRADIUS 1 km\nGEORADIUS g 15 37 200 km STORE d\nGEORADIUS g 15 37 200 km\nGEORADIUSBYMEMBER g a 200 km STOREDIST e",
    ),
];

pub const STREAMS: &[Row] = &[
    row(
        "XADD",
        "XADD x * f v\nXADD x 9999999999999-* f v\nXADD x 9999999999999-5 f v\nXADD x 1-1 f v\nXADD none NOMKSTREAM * f v\nxadd x 9999999999999-9 a b c d",
    ),
    differs(
        "XADD with a limit",
        "XADD x 1-1 f v\nXADD x 1-2 f v\nXADD x MAXLEN 2 2-1 f v\nXADD x MAXLEN = 2 3-* f v\nXADD x MAXLEN ~ 2 4-1 f v\nXADD x MINID 3 5-1 f v\nXADD x MINID ~ 4 6-1 f v\nXADD x MAXLEN ~ 2 LIMIT 10 7-1 f v",
        "XADD x 1-1 f v\nXADD x 1-2 f v\nXADD x MAXLEN 2 2-1 f v\nXADD x MAXLEN = 2 3-0 f v\nXADD x MAXLEN = 3 4-1 f v\nXADD x MINID 3 5-1 f v\nXADD x MINID = 3-0 6-1 f v\nXADD x MAXLEN = 5 LIMIT 10 7-1 f v",
    ),
    row(
        "XTRIM",
        "XADD x 1-1 f v\nXADD x 1-2 f v\nXADD x 1-3 f v\nXTRIM x MAXLEN 9\nXTRIM x MAXLEN ~ 1\nXTRIM x MAXLEN 2\nXTRIM x MINID 1-3\nXTRIM x MINID ~ 9\nXTRIM x MINID 9\nXTRIM x MAXLEN 0",
    ),
    row(
        "XDEL and XSETID",
        "XADD x 1-1 f v\nXADD x 1-2 f v\nXDEL x 5-5\nXDEL x 1-1 5-5\nXSETID x 9-9\nXSETID x 10-9 ENTRIESADDED 10 MAXDELETEDID 1-1",
    ),
    row(
        "XGROUP",
        "XGROUP CREATE x g $ MKSTREAM\nXGROUP CREATE x g $\nXGROUP CREATECONSUMER x g c\nXGROUP CREATECONSUMER x g c\nXGROUP SETID x g 0\nXGROUP SETID x g 0\nXGROUP DELCONSUMER x g c\nXGROUP DELCONSUMER x g c\nXGROUP DESTROY x g\nXGROUP DESTROY x g\nXGROUP CREATE x g 0 ENTRIESREAD 5",
    ),
    differs(
        "XREADGROUP",
        "XADD x 1-1 f v\nXADD x 1-2 f v\nXGROUP CREATE x g 0\nXREADGROUP GROUP g c COUNT 1 STREAMS x >\nXREADGROUP GROUP g c STREAMS x >",
        "XADD x 1-1 f v\nXADD x 1-2 f v\nXGROUP CREATE x g 0\nMULTI\nXGROUP CREATECONSUMER x g c\nXCLAIM x g c 0 1-1 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-1\nXGROUP SETID x g 1-1 ENTRIESREAD 1\nEXEC\nMULTI\nXCLAIM x g c 0 1-2 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-2\nXGROUP SETID x g 1-2 ENTRIESREAD 2\nEXEC",
    ),
    row(
        "XREADGROUP NOACK",
        "XADD x 1-1 f v\nXADD x 1-2 f v\nXGROUP CREATE x g 0\nXREADGROUP GROUP g c NOACK COUNT 1 STREAMS x >\nXREADGROUP GROUP g c NOACK STREAMS x >",
    ),
    differs(
        "XREADGROUP of history",
        "XADD x 1-1 f v\nXGROUP CREATE x g 0\nXREADGROUP GROUP g c STREAMS x >\nXREADGROUP GROUP g c STREAMS x 0",
        "XADD x 1-1 f v\nXGROUP CREATE x g 0\nMULTI\nXGROUP CREATECONSUMER x g c\nXCLAIM x g c 0 1-1 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-1\nXGROUP SETID x g 1-1 ENTRIESREAD 1\nEXEC",
    ),
    differs(
        "XREADGROUP that finds nothing",
        "XADD x 1-1 f v\nXGROUP CREATE x g $\nXREADGROUP GROUP g c STREAMS x >",
        "XADD x 1-1 f v\nXGROUP CREATE x g $\nXGROUP CREATECONSUMER x g c",
    ),
    differs(
        "XREADGROUP of several",
        "XADD x 1-1 f v\nXADD y 1-1 f v\nXGROUP CREATE x g 0\nXGROUP CREATE y g 0\nXREADGROUP GROUP g c STREAMS x y > >",
        "XADD x 1-1 f v\nXADD y 1-1 f v\nXGROUP CREATE x g 0\nXGROUP CREATE y g 0\nMULTI\nXGROUP CREATECONSUMER x g c\nXCLAIM x g c 0 1-1 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-1\nXGROUP SETID x g 1-1 ENTRIESREAD 1\nXGROUP CREATECONSUMER y g c\nXCLAIM y g c 0 1-1 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-1\nXGROUP SETID y g 1-1 ENTRIESREAD 1\nEXEC",
    ),
    differs(
        "XREADGROUP served",
        "XGROUP CREATE x g $ MKSTREAM\nb: XREADGROUP GROUP g c BLOCK 0 STREAMS x >\nXADD x 1-1 f v",
        "XGROUP CREATE x g $ MKSTREAM\nXGROUP CREATECONSUMER x g c\nXADD x 1-1 f v\nMULTI\nXCLAIM x g c 0 1-1 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-1\nXGROUP SETID x g 1-1 ENTRIESREAD 1\nEXEC",
    ),
    row("XREAD says nothing", "XADD x 1-1 f v\nXREAD STREAMS x 0"),
    differs(
        "XACK",
        "XADD x 1-1 f v\nXGROUP CREATE x g 0\nXREADGROUP GROUP g c STREAMS x >\nXACK x g 5-5\nXACK x g 1-1 5-5\nXACK x g 1-1",
        "XADD x 1-1 f v\nXGROUP CREATE x g 0\nMULTI\nXGROUP CREATECONSUMER x g c\nXCLAIM x g c 0 1-1 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-1\nXGROUP SETID x g 1-1 ENTRIESREAD 1\nEXEC\nXACK x g 1-1 5-5",
    ),
    differs(
        "XCLAIM",
        "XADD x 1-1 f v\nXADD x 1-2 f v\nXGROUP CREATE x g 0\nXREADGROUP GROUP g c STREAMS x >\nXCLAIM x g d 0 1-1\nXCLAIM x g d 999999 1-2\nXCLAIM x g d 0 1-2 JUSTID\nXCLAIM x g e 0 9-9 FORCE\nXCLAIM x g e 0 1-1 IDLE 1000 RETRYCOUNT 7\nXCLAIM x g e 0 5-5 LASTID 7-7",
        "XADD x 1-1 f v\nXADD x 1-2 f v\nXGROUP CREATE x g 0\nMULTI\nXGROUP CREATECONSUMER x g c\nXCLAIM x g c 0 1-1 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-1\nXCLAIM x g c 0 1-2 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-2\nXGROUP SETID x g 1-2 ENTRIESREAD 2\nEXEC\nXCLAIM x g d 0 1-1 TIME <0s> RETRYCOUNT 2 FORCE JUSTID LASTID 1-2\nXCLAIM x g d 0 1-2 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-2\nXCLAIM x g e 0 1-1 TIME <0s> RETRYCOUNT 7 FORCE JUSTID LASTID 1-2\nXGROUP SETID x g 7-7 ENTRIESREAD 2",
    ),
    differs(
        "XCLAIM of what is gone",
        "XADD x 1-1 f v\nXGROUP CREATE x g 0\nXREADGROUP GROUP g c STREAMS x >\nXDEL x 1-1\nXCLAIM x g d 0 1-1",
        "XADD x 1-1 f v\nXGROUP CREATE x g 0\nMULTI\nXGROUP CREATECONSUMER x g c\nXCLAIM x g c 0 1-1 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-1\nXGROUP SETID x g 1-1 ENTRIESREAD 1\nEXEC\nXDEL x 1-1\nXCLAIM x g c 0 1-1 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-1",
    ),
    differs(
        "XAUTOCLAIM",
        "XADD x 1-1 f v\nXADD x 1-2 f v\nXGROUP CREATE x g 0\nXREADGROUP GROUP g c STREAMS x >\nXAUTOCLAIM x g d 0 0 COUNT 1\nXAUTOCLAIM x g d 999999 0\nXAUTOCLAIM x g e 0 0 JUSTID\nXDEL x 1-1\nXAUTOCLAIM x g f 0 0",
        "XADD x 1-1 f v\nXADD x 1-2 f v\nXGROUP CREATE x g 0\nMULTI\nXGROUP CREATECONSUMER x g c\nXCLAIM x g c 0 1-1 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-1\nXCLAIM x g c 0 1-2 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-2\nXGROUP SETID x g 1-2 ENTRIESREAD 2\nEXEC\nXCLAIM x g d 0 1-1 TIME <0s> RETRYCOUNT 2 FORCE JUSTID LASTID 1-2\nMULTI\nXCLAIM x g e 0 1-1 TIME <0s> RETRYCOUNT 2 FORCE JUSTID LASTID 1-2\nXCLAIM x g e 0 1-2 TIME <0s> RETRYCOUNT 1 FORCE JUSTID LASTID 1-2\nEXEC\nXDEL x 1-1\nMULTI\nXCLAIM x g e 0 1-1 TIME <0s> RETRYCOUNT 2 FORCE JUSTID LASTID 1-2\nXCLAIM x g f 0 1-2 TIME <0s> RETRYCOUNT 2 FORCE JUSTID LASTID 1-2\nEXEC",
    ),
];

/// What 7.0 does not have.
pub const NEWER: &[Row] = &[
    differs(
        "expiry of fields",
        "HSET h a 1 b 2 c 3 d 4\nHEXPIRE h 100 FIELDS 2 a none\nHPEXPIRE h 200000 NX FIELDS 2 a b\nHEXPIREAT h {s:+300} FIELDS 1 c\nHPEXPIREAT h {ms+300} FIELDS 1 c\nHEXPIRE h 0 FIELDS 1 d\nHPERSIST h FIELDS 2 a d\nHPERSIST h FIELDS 1 a",
        "HSET h a 1 b 2 c 3 d 4\nHPEXPIREAT h <100s> FIELDS 1 a\nHPEXPIREAT h <200s> NX FIELDS 1 b\nHPEXPIREAT h <300s> FIELDS 1 c\nHPEXPIREAT h <300s> FIELDS 1 c\nHDEL h d\nHPERSIST h FIELDS 2 a d",
    ),
    differs(
        "fields past their time",
        "DEBUG SET-ACTIVE-EXPIRE 0\nHSET h a 1 b 2\nHPEXPIRE h 1 FIELDS 1 a\npast 5\nHGET h a\nHGET h b",
        "HSET h a 1 b 2\nHPEXPIREAT h <0s> FIELDS 1 a\nHDEL h a",
    ),
];

pub const UNITS: &[Row] = &[
    row("a block", "MULTI\nSET a 1\nINCR n\nGET a\nEXEC"),
    row("a block of one effect", "MULTI\nSET a 1\nGET a\nEXEC"),
    row(
        "a block of none",
        "MULTI\nGET a\nDEL none\nEXEC\nMULTI\nEXEC\nMULTI\nSET a 1\nDISCARD",
    ),
    row(
        "a block over databases",
        "MULTI\nSET a 1\nSELECT 2\nSET b 1\nSET c 1\nEXEC\nSET d 1\nSELECT 0\nSET e 1",
    ),
    row(
        "a block whose commands have several effects",
        "SADD s a b c\nMULTI\nSPOP s 3\nSET k v\nEXEC",
    ),
    row(
        "a block that fails in the middle",
        "SET s x\nMULTI\nSET a 1\nINCR s\nSET b 1\nEXEC",
    ),
    row("PUBLISH in a block", "MULTI\nSET a 1\nPUBLISH c m\nEXEC"),
    row(
        "a script",
        "EVAL 'redis.call(\"set\", KEYS[1], 1) redis.call(\"INCR\", KEYS[1]) return redis.call(\"get\", KEYS[1])' 1 a",
    ),
    row(
        "a script of one effect",
        "EVAL 'return redis.call(\"SET\", KEYS[1], 1)' 1 a\nEVAL 'return redis.call(\"get\", KEYS[1])' 1 a",
    ),
    row(
        "a script that fails in the middle",
        "EVAL 'redis.call(\"set\", KEYS[1], 1) redis.call(\"set\", KEYS[1], 2) error(\"x\")' 1 a",
    ),
    row(
        "a script with times",
        "EVAL 'redis.call(\"set\", KEYS[1], 1, \"EX\", 100) redis.call(\"expire\", KEYS[1], 200)' 1 a",
    ),
    row(
        "a script that selects",
        "EVAL 'redis.call(\"select\", 2) redis.call(\"set\", KEYS[1], 1)' 1 a\nSET b 1",
    ),
    row(
        "a script whose effects are not for replicas",
        "EVAL 'redis.call(\"set\", KEYS[1], 1) redis.set_repl(redis.REPL_NONE) redis.call(\"set\", KEYS[1], 2) redis.set_repl(redis.REPL_REPLICA) redis.call(\"set\", KEYS[1], 3) redis.set_repl(redis.REPL_AOF) redis.call(\"set\", KEYS[1], 4) redis.set_repl(redis.REPL_ALL) redis.call(\"set\", KEYS[1], 5)' 1 a",
    ),
    row(
        "a script in a block",
        "MULTI\nSET a 1\nEVAL 'redis.call(\"set\", KEYS[1], 1) redis.call(\"set\", KEYS[1], 2)' 1 b\nEXEC",
    ),
    row(
        "a script that publishes",
        "EVAL 'redis.call(\"publish\", \"c\", \"m\")' 0\nEVAL 'redis.call(\"set\", KEYS[1], 1) redis.call(\"publish\", \"c\", \"m\")' 1 a",
    ),
    row(
        "functions",
        "FUNCTION LOAD '#!lua name=l\nredis.register_function(\"f\", function(keys) redis.call(\"set\", keys[1], 1) return redis.call(\"incr\", keys[1]) end)'\nFCALL f 1 k\nFUNCTION DELETE l\nFUNCTION DELETE l",
    ),
    row("functions flushed", "FUNCTION FLUSH\nFUNCTION FLUSH ASYNC"),
    row(
        "what DEBUG REPLICATE says",
        "SET a 1\nDEBUG REPLICATE SET b 2",
    ),
];

pub const REMOVALS: &[Row] = &[
    row(
        "read past its time",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET k v PX 1\nSET l v PX 1\npast 5\nGET k\nGET k\nEXISTS l",
    ),
    row(
        "written past its time",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET k 5 PX 1\npast 5\nINCR k",
    ),
    row(
        "deleted past its time",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET k 5 PX 1\npast 5\nDEL k",
    ),
    row(
        "set past its time",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET k 5 PX 1\npast 5\nSET k 6",
    ),
    row(
        "set if not there past its time",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET k 5 PX 1\npast 5\nSET k 6 NX\nSET l 5 PX 1\npast 5\nSET l 6 XX",
    ),
    row(
        "renamed over past its time",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET k 5 PX 1\nSET l 1\npast 5\nRENAME l k",
    ),
    row(
        "several past their time",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 5 PX 1\nSET b 5 PX 1\npast 5\nMGET a b none",
    ),
    row(
        "MSET past their time",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 5 PX 1\nSET b 5 PX 1\npast 5\nMSET a 1 b 2",
    ),
    row(
        "past their time in a block",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 5 PX 1\nSET b 5 PX 1\npast 5\nMULTI\nGET a\nINCR b\nEXEC",
    ),
    row(
        "past their time in a block of reads",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 5 PX 1\nSET b 5 PX 1\npast 5\nMULTI\nGET a\nGET b\nEXEC",
    ),
    row(
        "past their time in a script",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 5 PX 1\npast 5\nEVAL 'redis.call(\"get\", KEYS[1]) redis.call(\"incr\", KEYS[1])' 1 a",
    ),
    row(
        "met by SCAN",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 5 PX 1\npast 5\nscan all\nscan all",
    ),
    row(
        "met by KEYS and DBSIZE",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSET a 5 PX 1\npast 5\nKEYS *\nDBSIZE\nGET a",
    ),
    row(
        "stored operands past their time",
        "DEBUG SET-ACTIVE-EXPIRE 0\nSADD a 1\nSADD b 1\nPEXPIRE a 1\npast 5\nSINTERSTORE d a b\nSUNIONSTORE d a b",
    ),
    row("set to a past time", "SET k v PXAT 1\nGET k"),
    row(
        "expired where freeing is lazy",
        "CONFIG SET lazyfree-lazy-expire yes\nDEBUG SET-ACTIVE-EXPIRE 0\nSET a 5 PX 1\npast 5\nGET a\nSET b 1 PX 1\npast 5\nEXPIRE b 10\nSET b 1\nEXPIRE b -1\nSET b 1\nGETEX b PXAT 1\nCONFIG SET lazyfree-lazy-expire no",
    ),
    row(
        "SPOP of all where freeing is lazy",
        "CONFIG SET lazyfree-lazy-server-del yes\nSADD s a\nSPOP s 4\nCONFIG SET lazyfree-lazy-server-del no",
    ),
    row(
        "DEL where freeing is lazy",
        "CONFIG SET lazyfree-lazy-user-del yes\nSET a 1\nDEL a\nCONFIG SET lazyfree-lazy-user-del no",
    ),
    row(
        "CLIENT NO-TOUCH and reads",
        "SET a 1\nGET a\nSTRLEN a\nOBJECT FREQ a",
    ),
];
