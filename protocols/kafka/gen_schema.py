"""Turns kafka_schema.txt into C: python3 gen_schema.py SCHEMA OUT.h OUT.c

The schema's notation is described at its top. Per message struct three things come out: the C
struct, its initial value (every default set), and its descriptor, which the decoder, encoder and
printer of kafka_wire.c walk. What the schema says wrongly is refused here, with its line.
"""
import re
import sys

SCALARS = {  # type: (C type, constant of kafka_wire.h, least bytes on the wire)
    "bool": ("bool", "KAFKA_BOOL", 1), "i8": ("int8_t", "KAFKA_I8", 1),
    "i16": ("int16_t", "KAFKA_I16", 2), "u16": ("uint16_t", "KAFKA_U16", 2),
    "i32": ("int32_t", "KAFKA_I32", 4), "i64": ("int64_t", "KAFKA_I64", 8),
    "f64": ("double", "KAFKA_F64", 8), "uuid": ("struct kafka_uuid", "KAFKA_UUID", 16),
    "string": ("struct bytes", "KAFKA_STRING", 2), "bytes": ("struct bytes", "KAFKA_BYTES", 4),
    "records": ("struct kafka_records", "KAFKA_RECORDS", 4)}
NO_FLEX = 127
DEPTH_MAX = 8
FIELD = re.compile(r"([a-z][a-z0-9_]*) (\[\])?(\{)?([a-z0-9_]+)\}?(\?[-0-9+]*)?( [-0-9+]+)?"
                   r"(?: tag (\d+))?( !)?(?: = (\S+))?$")


class Bad(Exception):
    pass


def versions(text, first, last):
    """The range a note such as 5+, -7, 5-7 or 5 stands for."""
    m = re.fullmatch(r"(\d*)(\+|-(\d+))?", text)
    if not text or not m:
        raise Bad(f"versions {text!r}")
    low = int(m[1]) if m[1] else first
    high = last if m[2] == "+" else int(m[3]) if m[3] else low
    if not first <= low <= high <= last:
        raise Bad(f"versions {text!r} are outside of v{first}-{last}")
    return low, high


class Struct:
    def __init__(self, c_name, api):
        self.c_name, self.api, self.fields = c_name, api, []

    def wire_order(self):
        """Tagged fields come last, by tag."""
        tagged = sorted((f for f in self.fields if f.tag is not None), key=lambda f: f.tag)
        return [f for f in self.fields if f.tag is None] + tagged

    def least(self, version):
        """The fewest bytes that one such struct takes in a version."""
        flex = version >= self.api.flex
        return flex + sum(f.least(version, flex) for f in self.fields
                          if f.tag is None and f.low <= version <= f.high)

    def depth(self):
        return 1 + max([f.of.depth() for f in self.fields if f.of], default=0)


class Field:
    def __init__(self, text, api):
        m = FIELD.match(text)
        if not m:
            raise Bad(f"field {text!r}")
        self.name, self.type, self.default, self.of = m[1], m[4], m[9], None
        self.array, self.inline, self.must = bool(m[2]), bool(m[3]), bool(m[8])
        self.tag = None if m[7] is None else int(m[7])
        self.low, self.high = versions(m[6].strip(), api.first, api.last) if m[6] else (
            api.first, api.last)
        self.null = (1, 0)
        if m[5]:
            self.null = versions(m[5][1:], api.first, api.last) if m[5][1:] else (
                api.first, api.last)
        self.check(api)

    def check(self, api):
        pointer = self.array or self.type in ("string", "bytes", "records")
        if m_null(self) and not pointer:
            raise Bad(f"{self.name} can't be null")
        if self.tag is not None and (self.low < api.flex or self.type == "records"):
            raise Bad(f"{self.name} can't be tagged")
        if self.default == "null" and not m_null(self):
            raise Bad(f"{self.name} is null by default, but never may be")
        if self.default not in (None, "null") and (pointer or self.is_struct()):
            raise Bad(f"{self.name} can't have that default")

    def is_struct(self):
        return self.type not in SCALARS

    def least(self, version, flex):
        if self.array or self.type in ("string", "bytes", "records"):
            return 1 if flex else 2 if self.type == "string" and not self.array else 4
        return self.of.least(version) if self.of else SCALARS[self.type][2]

    def c_type(self):
        return f"struct {self.of.c_name}" if self.of else SCALARS[self.type][0]

    def initial(self):
        """The initializer, or None where zero bytes are the default."""
        if self.inline:
            return f"INIT_{self.of.c_name}"
        if self.default not in (None, "null"):
            value = str(int(self.default, 0)) if self.type != "bool" else self.default
            return "INT32_MIN" if value == "-2147483648" else value
        if not m_null(self) or self.default == "null":
            return None
        if self.array:
            return "(void *)(uintptr_t)kafka_empty"
        return "{{kafka_empty, 0}, NULL, 0}" if self.type == "records" else "{kafka_empty, 0}"


def m_null(field):
    return field.null[0] <= field.null[1]


class Api:
    def __init__(self, line):
        m = re.fullmatch(r"(api|data) ([a-z_0-9]+)(?: (\d+))? v(\d+)-(\d+)(?: flex (\d+))?", line)
        if not m or (m[1] == "api") != bool(m[3]):
            raise Bad(f"not an api: {line!r}")
        self.name, self.key = m[2], int(m[3]) if m[3] else -1
        self.first, self.last = int(m[4]), int(m[5])
        self.flex = int(m[6]) if m[6] else NO_FLEX
        self.roots, self.structs = {}, []

    def parts(self):
        return {"request", "response"} if self.key >= 0 else {"body"}


class Parser:
    def __init__(self):
        self.apis, self.stack, self.named, self.part = [], [], {}, ""

    def line(self, text):
        body = text.strip()
        depth = len(text) - len(text.lstrip("\t"))
        if body.startswith(("api ", "data ")):
            self.apis.append(Api(body))
        elif depth == 0:
            self.begin_part(body)
        elif depth > len(self.stack):
            raise Bad("nothing to describe here: too deep")
        else:
            self.close(depth)
            owner = self.stack[-1]
            for one in body.split(","):
                self.field(owner, one.strip())

    def begin_part(self, word):
        api = self.apis[-1]
        if word not in api.parts() or word in api.roots:
            raise Bad(f"{word!r} does not belong here")
        self.close(1)
        suffix = {"request": "_req", "response": "_res", "body": ""}[word]
        self.part = f"kafka_{api.name}{suffix}"
        root = Struct(self.part, api)
        api.roots[word], self.named, self.stack = root, {}, [root]
        api.structs.append(root)

    def close(self, depth):
        for s in self.stack[depth:]:
            if not s.fields:
                raise Bad(f"{s.c_name} has no fields")
        del self.stack[depth:]

    def field(self, owner, text):
        api = self.apis[-1]
        f = Field(text, api)
        if any(o.name == f.name or (f.tag is not None and o.tag == f.tag) for o in owner.fields):
            raise Bad(f"{f.name} or its tag is there already")
        owner.fields.append(f)
        if f.is_struct():
            f.of = self.named.get(f.type)
            if f.of is None:
                f.of = self.named[f.type] = Struct(f"{self.part}_{f.type}", api)
                api.structs.append(f.of)
                self.stack.append(f.of)


def parse(path):
    p = Parser()
    with open(path, encoding="utf-8") as source:
        for number, text in enumerate(source, 1):
            text = text.rstrip()
            if not text or text.startswith("#"):
                continue
            try:
                p.line(text)
            except Bad as e:
                sys.exit(f"{path}:{number}: {e}")
    keys = [a.key for a in p.apis if a.key >= 0]
    for a in p.apis:
        check(path, a)
    if keys != sorted(set(keys)):
        sys.exit(f"{path}: keys are not in order")
    return p.apis


def check(path, api):
    if set(api.roots) != api.parts():
        sys.exit(f"{path}: {api.name} lacks a direction")
    for root in api.roots.values():
        if root.depth() > DEPTH_MAX:
            sys.exit(f"{path}: {root.c_name} is nested deeper than {DEPTH_MAX}")
    elements = {f.of for s in api.structs for f in s.fields if f.of and f.array}
    for s in api.structs:
        if not s.fields:
            sys.exit(f"{path}: {s.c_name} has no fields")
        if s in elements and min(s.least(v) for v in range(api.first, api.last + 1)) < 1:
            sys.exit(f"{path}: an element of {s.c_name} may take no bytes at all")


def inner_first(api):
    """The structs in an order in which those embedded by value come before their owners."""
    done = []

    def visit(s):
        for f in s.fields:
            if f.of and f.inline:
                visit(f.of)
        if s not in done:
            done.append(s)

    for s in api.structs:
        visit(s)
    return done


def header(apis):
    out = ["/* Made from kafka_schema.txt by gen_schema.py. */", "#ifndef KAFKA_SCHEMA_H",
           "#define KAFKA_SCHEMA_H", '#include "protocols/kafka/kafka_wire.h"', "", "enum {"]
    out += [f"\tKAFKA_{a.name.upper()} = {a.key}," for a in apis if a.key >= 0]
    out += ["};"]
    for a in apis:
        out.append(f"\nextern const struct kafka_api kafka_api_{a.name};")
        for s in inner_first(a):
            out.append(f"struct {s.c_name} {{")
            for f in s.fields:
                out.append(f"\t{f.c_type()} {'*' if f.array else ''}{f.name};")
                if f.array:
                    out.append(f"\tuint32_t {f.name}_count;")
            out.append("};")
            out.append(f"extern const struct {s.c_name} {s.c_name}_init;")
            out.append(f"extern const struct kafka_struct {s.c_name}_type;")
    return out + ["", "#endif", ""]


def tables(apis):
    out = ["/* Made from kafka_schema.txt by gen_schema.py. */",
           '#include "protocols/kafka/kafka_schema.h"', ""]
    for a in apis:
        for s in inner_first(a):
            struct_tables(a, s, out)
        roots = [a.roots.get("request") or a.roots["body"], a.roots.get("response")]
        of = [f"&{r.c_name}_type" if r else "NULL" for r in roots]
        out.append(f"const struct kafka_api kafka_api_{a.name} = {{\n\t\"{a.name}\", {a.key}, "
                   f"{a.first}, {a.last}, {a.flex}, {of[0]}, {of[1]}}};\n")
    out.append("const struct kafka_api *const kafka_apis[] = {")
    out += [f"\t&kafka_api_{a.name}," for a in apis]
    out += ["};", f"const int kafka_apis_count = {len(apis)};"]
    out.append("const struct kafka_api *const kafka_apis_by_key[] = {")
    out += [f"\t[{a.key}] = &kafka_api_{a.name}," for a in apis if a.key >= 0]
    out += ["};", f"const int kafka_keys_end = {max(a.key for a in apis) + 1};", ""]
    return out


def struct_tables(api, s, out):
    name = s.c_name
    inits = [f".{f.name} = {f.initial()}" for f in s.fields if f.initial()]
    out.append(f"#define INIT_{name} {{{', '.join(inits) or '0'}}}")
    out.append(f"const struct {name} {name}_init = INIT_{name};")
    out.append(f"static const struct kafka_field fields_{name}[] = {{")
    for f in s.wire_order():
        of = f"&{f.of.c_name}_type" if f.of else "NULL"
        kind = "KAFKA_STRUCT" if f.of else SCALARS[f.type][1]
        count = f"offsetof(struct {name}, {f.name}_count)" if f.array else "0"
        out.append(f"\t{{\"{f.name}\", {of}, offsetof(struct {name}, {f.name}), {count}, {kind}, "
                   f"{int(f.array)}, {int(f.must)}, {f.low}, {f.high}, {f.null[0]}, {f.null[1]}, "
                   f"{-1 if f.tag is None else f.tag}}},")
    least = ", ".join(str(max(s.least(v), 1)) for v in range(api.last + 1))
    plain = sum(f.tag is None for f in s.fields)
    out.append("};")
    out.append(f"static const uint16_t least_{name}[] = {{{least}}};")
    out.append(f"const struct kafka_struct {name}_type = {{\"{name}\", fields_{name}, "
               f"&{name}_init, least_{name}, sizeof(struct {name}), {plain}, {len(s.fields)}}};\n")


def main():
    apis = parse(sys.argv[1])
    for path, lines in ((sys.argv[2], header(apis)), (sys.argv[3], tables(apis))):
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(lines))


main()
