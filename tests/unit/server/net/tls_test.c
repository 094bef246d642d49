#include <stdarg.h>
#include "tests/unit/server/net/fixture.h"

/* A certificate authority of the openssl command's in a temporary folder, and Python's ssl as
 * the client: another implementation of TLS than the server's. */

/* The library keeps points of elliptic curves per thread and gives them back to nobody. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:wc_ecc_new_point";
}

static char folder[64];

static const char make_script[] =
	"set -e; cd \"$1\"; exec 2>make.log\n"
	"q='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256'\n"
	"openssl req -x509 $q -keyout ca.key -out ca.pem -days 30 -subj /CN=test-ca "
	"-addext keyUsage=critical,keyCertSign,cRLSign\n"
	"issue() { openssl req $q -keyout $1.key -out $1.csr -subj \"$2\"\n"
	"  printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\\n' >ext\n"
	"  openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 20 "
	"-sha256 -extfile ext -out $1.pem; }\n"
	"issue server /O=Sluice/CN=first\n"
	"issue second /O=Sluice/CN=second\n"
	"issue client '/O=Acme, Inc./OU=plant/CN=device-1'\n"
	"issue revoked /CN=device-2\n"
	"names() { openssl req $q -keyout $1.key -out $1.csr -subj \"$2\"\n"
	"  printf \"subjectAltName=$3\\n\" >ext\n"
	"  openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 20 "
	"-sha256 -extfile ext -out $1.pem; }\n"
	"names uri /CN=a 'DNS:d,URI:spiffe://x/y,email:m@x'\n"
	"names mail /CN=a/O=b 'DNS:d,email:m@x,DNS:e'\n"
	"names two /CN=a/CN=b 'DNS:d,DNS:e'\n"
	"names odd /O=b 'IP:1.2.3.4'\n"
	"openssl req -x509 $q -keyout other.key -out other.pem -days 30 -subj /CN=stranger\n"
	"touch index.txt; echo 01 >crlnumber\n"
	"printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index.txt\\ncrlnumber=crlnumber\\n"
	"default_md=sha256\\ndefault_crl_days=30\\n' >ca.cnf\n"
	"openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem -revoke revoked.pem\n"
	"openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem -gencrl -out crl.pem\n"
	"cp server.pem live.pem; cp server.key live.key\n";

static const char client_script[] =
	"import socket, ssl, struct, sys, time\n"
	"port, folder, what, cert = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]\n"
	"x = ssl.create_default_context(cafile=folder + '/ca.pem')\n"
	"x.check_hostname = False\n"
	"if cert != '-': x.load_cert_chain(f'{folder}/{cert}.pem', f'{folder}/{cert}.key')\n"
	"if what in ('v12', 'again12'): x.maximum_version = ssl.TLSVersion.TLSv1_2\n"
	"if what == 'alpn': x.set_alpn_protocols(['none', 'mqtt'])\n"
	"def frame(s, body): s.sendall(struct.pack('>I', len(body)) + body)\n"
	"def exact(s, n):\n"
	"    b = b''\n"
	"    while len(b) < n:\n"
	"        p = s.recv(n - len(b))\n"
	"        if not p: raise EOFError\n"
	"        b += p\n"
	"    return b\n"
	"def reply(s): return exact(s, struct.unpack('>I', exact(s, 4))[0])\n"
	"try:\n"
	"    raw = socket.create_connection(('127.0.0.1', port), 10)\n"
	"    if what == 'proxy': raw.sendall(b'\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21\\x11\\0\\x0c'\n"
	"        b'\\x0a\\1\\2\\3\\x0a\\0\\0\\1\\x12\\x67\\7\\x5b')\n"
	"    s = x.wrap_socket(raw)\n"
	"    frame(s, b'ehello'); r = [reply(s).decode()]\n"
	"    if what in ('big', 'v12'):\n"
	"        data = bytes(i * 7 % 251 for i in range(300000)) * 10\n"
	"        for kind in (b'e', b's'):\n"
	"            frame(s, kind + data); frame(s, b'etail')\n"
	"            r.append(str(reply(s) == kind + data)); r.append(reply(s).decode())\n"
	"        r.append(s.version())\n"
	"    if what == 'slow':\n"
	"        frame(s, b'b' + struct.pack('>I', 20000000)); frame(s, b'cend')\n"
	"        time.sleep(0.3); n = 0\n"
	"        while n < 20000000: n += len(s.recv(min(65536, 20000000 - n)))\n"
	"        r.append(reply(s).decode()); r.append(repr(s.recv(1)))\n"
	"    if what == 'pause':\n"
	"        s.sendall(b'\\0\\0\\0\\1p' + b'\\0\\0\\0\\5elate' * 5000)\n"
	"        r.append(str({reply(s) for i in range(5001)} == {b'p', b'elate'}))\n"
	"    if what in ('last', 'ends'):\n" /* all of it and the end in one piece */
	"        i, o = ssl.MemoryBIO(), ssl.MemoryBIO(); t = x.wrap_bio(i, o)\n"
	"        raw = socket.create_connection(('127.0.0.1', port), 10)\n"
	"        while True:\n"
	"            try: t.do_handshake(); break\n"
	"            except ssl.SSLWantReadError: raw.sendall(o.read()); i.write(raw.recv(65536))\n"
	"        t.write(b'\\0\\0\\0\\1p' + b'\\0\\0\\0\\1' + (b'c' if what == 'last' else b'p'))\n"
	"        try: t.unwrap()\n"
	"        except ssl.SSLWantReadError: pass\n"
	"        raw.sendall(o.read())\n"
	"        while raw.recv(65536): pass\n"
	"    if what == 'alpn': frame(s, b'a'); r.append(reply(s).decode())\n"
	"    if what == 'subject': frame(s, b'q'); r.append(reply(s).decode())\n"
	"    if what == 'names': frame(s, b'i'); r.append(reply(s).decode())\n"
	"    if what in ('again', 'again12'):\n"
	"        old = s.session; s.close()\n"
	"        s = x.wrap_socket(socket.create_connection(('127.0.0.1', port), 10),\n"
	"            session=old)\n"
	"        frame(s, b'i'); r.append(reply(s).decode())\n"
	"    if what == 'proxy': frame(s, b'n'); r.append(reply(s).decode())\n"
	"    if what == 'server': r.append(dict(p[0] for p in\n"
	"        s.getpeercert()['subject'])['commonName'])\n"
	"    if what == 'hold':\n"
	"        print('up', flush=True); sys.stdin.readline(); frame(s, b'eagain')\n"
	"        r.append(reply(s).decode())\n"
	"    print(' '.join(r))\n"
	"except (OSError, EOFError) as e: print('failed')\n";

static void write_file(const char *name, const char *text)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...)
{
	char command[600];
	va_list args;
	va_start(args, format);
	vsnprintf(command, sizeof command, format, args);
	va_end(args);
	ck_assert_int_eq(system(command), 0);
}

static void make_certificates(void)
{
	snprintf(folder, sizeof folder, "/tmp/net_tls_test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	write_file("make.sh", make_script);
	write_file("client.py", client_script);
	run("bash %s/make.sh %s", folder, folder);
}

static void remove_certificates(void)
{
	run("rm -rf %s", folder);
}

static void client(char *out, size_t size, const char *what, const char *cert)
{
	char command[300];
	snprintf(command, sizeof command, "/usr/bin/python3 %s/client.py %d %s %s %s", folder,
		fixture_port(true), folder, what, cert);
	FILE *p = popen(command, "r");
	ck_assert_ptr_nonnull(p);
	size_t n = fread(out, 1, size - 1, p);
	while (n > 0 && out[n - 1] == '\n')
		n--;
	out[n] = 0;
	ck_assert_int_eq(pclose(p), 0);
}

static void expect(const char *what, const char *cert, const char *result)
{
	char out[400];
	client(out, sizeof out, what, cert);
	ck_assert_str_eq(out, result);
}

/* Opens the TLS door with the settings, given as "key=value" with %s for the folder. */
static void start(const char *a, const char *b, const char *c)
{
	static char text[3][128], cert[128], key[128];
	const char *settings[7] = {"listen.mqtts=127.0.0.1:0", cert, key};
	const char *given[3] = {a, b, c};
	int count = 3;
	snprintf(cert, sizeof cert, "tls.cert=%s/live.pem", folder);
	snprintf(key, sizeof key, "tls.key=%s/live.key", folder);
	for (int i = 0; i < 3; i++) {
		if (given[i] == NULL)
			continue;
		const char *percent = strchr(given[i], '%');
		snprintf(text[i], sizeof text[i], "%.*s%s%s",
			(int)(percent ? percent - given[i] : (long)strlen(given[i])), given[i],
			percent ? folder : "", percent ? percent + 2 : "");
		settings[count++] = text[i];
	}
	fixture_start(settings);
}

START_TEST(echoes_large_frames)
{
	start(NULL, NULL, NULL);
	expect("big", "-", "ehello True etail True etail TLSv1.3");
	expect("v12", "-", "ehello True etail True etail TLSv1.2");
	expect("alpn", "-", "ehello mqtt");
	expect("subject", "-", "ehello -");
	ck_assert(reaches(&fix.closed, 4));
	ck_assert_int_eq(fix.why, ERR_CLOSED);
	fixture_stop();
}
END_TEST

START_TEST(slow_readers_and_pauses)
{
	start("conn.out_high=64MiB", "conn.linger_ms=60s", NULL);
	expect("slow", "-", "ehello cend b''");
	expect("pause", "-", "ehello True");
	ck_assert(reaches(&fix.closed, 2));
	fixture_stop();
}
END_TEST

/* What came before the end is looked at, also after a pause. */
START_TEST(the_end_waits_for_a_pause)
{
	start(NULL, NULL, NULL);
	expect(_i ? "ends" : "last", "-", "ehello");
	ck_assert(reaches(&fix.closed, 2));
	ck_assert_int_eq(fix.opened, 2);
	ck_assert_int_eq(fix.denied, _i ? 0 : 1);
	fixture_stop();
}
END_TEST

START_TEST(proxy_header_stands_before_tls)
{
	start("proxy_protocol.mqtts=on", NULL, NULL);
	expect("proxy", "-", "ehello 10.1.2.3:4711");
	fixture_stop();
}
END_TEST

START_TEST(client_certificate_required)
{
	start("tls.ca=%s/ca.pem", "tls.client=required", "tls.crl=%s/crl.pem");
	expect("subject", "client", "ehello CN=device-1,OU=plant,O=Acme\\, Inc.");
	expect("subject", "-", "failed");
	expect("subject", "other", "failed");
	expect("subject", "revoked", "failed");
	ck_assert_int_eq(fix.opened, 1);
	fixture_stop();
}
END_TEST

START_TEST(client_certificate_optional)
{
	start("tls.ca=%s/ca.pem", "tls.client=optional", NULL);
	expect("subject", "-", "ehello -");
	expect("subject", "client", "ehello CN=device-1,OU=plant,O=Acme\\, Inc.");
	expect("subject", "other", "failed");
	expect("names", "-", "ehello -|-");
	expect("names", "client", "ehello device-1|localhost");
	expect("names", "uri", "ehello a|spiffe://x/y");
	expect("names", "mail", "ehello a|m@x");
	expect("names", "two", "ehello -|-"); /* which of them is it? */
	expect("names", "odd", "ehello -|-");
	/* A session that is taken up again is nobody else's. */
	expect("again", "client", "ehello device-1|localhost");
	expect("again12", "client", "ehello device-1|localhost");
	fixture_stop();
}
END_TEST

START_TEST(minimum_version_holds)
{
	start("tls.min_version=1.3", NULL, NULL);
	expect("v12", "-", "failed");
	expect("big", "-", "ehello True etail True etail TLSv1.3");
	fixture_stop();
}
END_TEST

START_TEST(garbage_and_silence_end)
{
	static const char *const said[] = {"GET / HTTP/1.1\r\n\r\n", ""};
	char byte;
	start(_i == 1 ? "conn.handshake_ms=200" : NULL, NULL, NULL);
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)fixture_port(true)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&sa, sizeof sa), 0);
	put(fd, said[_i], strlen(said[_i]));
	while (recv(fd, &byte, 1, 0) > 0)
		; /* an alert, perhaps */
	close(fd);
	ck_assert_int_eq(fix.opened, 0);
	if (_i == 0) /* others are served as before */
		expect("plain", "-", "ehello");
	fixture_stop();
}
END_TEST

START_TEST(reload_changes_the_certificate)
{
	char command[300], line[100];
	start(NULL, NULL, NULL);
	expect("server", "-", "ehello first");
	snprintf(command, sizeof command,
		"(sleep 1.5; echo) | /usr/bin/python3 %s/client.py %d %s hold -", folder,
		fixture_port(true), folder);
	FILE *held = popen(command, "r");
	ck_assert_ptr_nonnull(fgets(line, sizeof line, held));
	ck_assert_str_eq(line, "up\n");
	run("cp %s/second.key %s/live.key", folder, folder);
	/* Half of the change: refused, and the old one stays. */
	ck_assert_int_eq(net_reload_tls(fix.net, fix_why, sizeof fix_why), ERR_INVALID);
	ck_assert_ptr_nonnull(strstr(fix_why, "tls.key"));
	expect("server", "-", "ehello first");
	run("cp %s/second.pem %s/live.pem", folder, folder);
	ck_assert_int_eq(net_reload_tls(fix.net, fix_why, sizeof fix_why), OK);
	nap(20);
	expect("server", "-", "ehello second");
	ck_assert_ptr_nonnull(fgets(line, sizeof line, held));
	ck_assert_str_eq(line, "ehello eagain\n");
	pclose(held);
	run("cp %s/server.pem %s/live.pem; cp %s/server.key %s/live.key", folder, folder, folder,
		folder);
	fixture_stop();
}
END_TEST

START_TEST(refuses_bad_files_by_key)
{
	static const char *const cases[][2] = {
		{"tls.cert=/nonexistent", "tls.cert: /nonexistent: No such file"},
		{"tls.key=/nonexistent", "tls.key: /nonexistent: No such file"},
		{"tls.client=required", "tls.ca"},
		{"tls.ca=/nonexistent", "tls.ca: /nonexistent: No such file"},
		{"tls.crl=/nonexistent", "tls.crl: /nonexistent: No such file"},
		{"tls.cert=", "tls.cert"},
		{"tls.cert=/dev/null", "tls.cert: /dev/null: the file is empty"},
		{"tls.key=/etc/hostname", "tls.key: /etc/hostname: "},
		{"tls.cert=/", "tls.cert: /: Is a directory"}};
	char cert[128], key[128];
	snprintf(cert, sizeof cert, "tls.cert=%s/live.pem", folder);
	snprintf(key, sizeof key, "tls.key=%s/live.key", folder);
	ck_assert_int_eq(fixture_open((const char *const[]){
				 "listen.mqtts=127.0.0.1:0", cert, key, cases[_i][0], NULL}),
		ERR_INVALID);
	ck_assert_msg(strncmp(fix_why, cases[_i][1], strlen(cases[_i][1])) == 0, "%s", fix_why);
	ck_assert_msg(strstr(fix_why, ": ok") == NULL, "%s", fix_why);
	fixture_free();
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("tls");
	tcase_add_unchecked_fixture(tc, make_certificates, remove_certificates);
	tcase_add_test(tc, echoes_large_frames);
	tcase_add_test(tc, slow_readers_and_pauses);
	tcase_add_loop_test(tc, the_end_waits_for_a_pause, 0, 2);
	tcase_add_test(tc, proxy_header_stands_before_tls);
	tcase_add_test(tc, client_certificate_required);
	tcase_add_test(tc, client_certificate_optional);
	tcase_add_test(tc, minimum_version_holds);
	tcase_add_loop_test(tc, garbage_and_silence_end, 0, 2);
	tcase_add_test(tc, reload_changes_the_certificate);
	tcase_add_loop_test(tc, refuses_bad_files_by_key, 0, 9);
	return run_tests(tc);
}
