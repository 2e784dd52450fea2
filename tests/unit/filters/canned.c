/* tests/unit/filters/canned.c - a filter host out of a can: facts from a table, findings kept. */
#include "unit/filters/canned.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define BUDGET_BYTES (16u << 20)

struct block {
	struct block *next;
	max_align_t bytes[];
};

/* A test helper has nobody to report to. */
static void
must(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "canned: %s\n", what);
	abort();
}

static struct canned *
can_of(struct filter_tx *tx)
{
	return (struct canned *)(void *)tx;
}

static void
keep(char *to, size_t cap, struct slice s)
{
	must(s.p != NULL, "a slice with a NULL pointer");
	(void)snprintf(to, cap, "%.*s", SLICE_FMT(slice_head(s, cap - 1)));
}

/* ---- facts ----------------------------------------------------------------------------------- */

static struct canned_asked *
asked_find(const struct canned *can, enum fact_kind kind, const char *name)
{
	for (size_t i = 0; i < can->n_asked; i++)
		if (can->asked[i].kind == kind && strcasecmp(can->asked[i].name, name) == 0)
			return &can->asked[i];
	return NULL;
}

/* The rows of one kind and name become the values of a fact. */
static void
answer(struct canned *can, struct canned_asked *asked)
{
	struct fact_value *values = NULL, *grown;
	struct fact *fact = &asked->fact;

	*fact = (struct fact){ .size = sizeof(*fact), .state = can->unknown, .ttl_s = 300 };
	fact->nxdomain = can->unknown == FACT_NONE;
	for (size_t i = 0; i < can->n_facts; i++) {
		const struct canned_fact *row = &can->facts[i];

		if (row->kind != asked->kind || strcasecmp(row->name, asked->name) != 0)
			continue;
		fact->state = row->state;
		fact->nxdomain = row->nxdomain;
		if (row->state != FACT_OK)
			continue;
		grown = realloc(values, (fact->n + 1) * sizeof(*values));
		must(grown != NULL, "out of memory");
		values = grown;
		values[fact->n++] = (struct fact_value){ row->bytes, row->number };
	}
	fact->values = values;
	asked->ready = true;
}

static const struct fact *
host_fact(struct filter_tx *tx, enum fact_kind kind, struct slice name)
{
	struct canned *can = can_of(tx);
	struct canned_asked *asked;
	char text[sizeof(asked->name)];

	must(name.len < sizeof(text) && !slice_has(name, '\0'), "the name of a fact");
	keep(text, sizeof(text), name);
	asked = asked_find(can, kind, text);
	if (asked == NULL) {
		must(can->n_asked < CANNED_FACTS_MAX, "too many facts asked for");
		asked = &can->asked[can->n_asked++];
		*asked = (struct canned_asked){ .kind = kind };
		memcpy(asked->name, text, sizeof(text));
	}
	return asked->ready ? &asked->fact : NULL;
}

static int
host_reserve(struct filter_tx *tx, const struct filter_limit *limit)
{
	struct canned *can = can_of(tx);
	struct canned_limit *kept;
	char key[sizeof(kept->key)];

	keep(key, sizeof(key), limit->key);
	for (size_t i = 0; i < can->n_limits; i++)
		if (strcmp(can->limits[i].key, key) == 0)
			return can->reserve;
	must(can->n_limits < CANNED_LIMITS_MAX, "too many reservations");
	kept = &can->limits[can->n_limits++];
	memcpy(kept->key, key, sizeof(key));
	kept->count = limit->count;
	kept->period_s = limit->period_s;
	kept->count_accepted = limit->count_accepted;
	return -1;
}

/* ---- what a filter sees ---------------------------------------------------------------------- */

static const struct filter_session *
host_session(struct filter_tx *tx)
{
	return &can_of(tx)->session;
}

static const struct filter_envelope *
host_envelope(struct filter_tx *tx)
{
	return &can_of(tx)->envelope;
}

static struct slice
host_message(struct filter_tx *tx)
{
	return can_of(tx)->message;
}

/* Gone with the next run. */
static void *
block_new(struct canned *can, size_t bytes)
{
	struct block *block = calloc(1, sizeof(*block) + bytes);

	must(block != NULL, "out of memory");
	block->next = can->blocks;
	can->blocks = block;
	return block->bytes;
}

static void *
host_alloc(struct filter_tx *tx, size_t bytes)
{
	struct canned *can = can_of(tx);

	if (bytes > can->budget - can->allocated)
		return NULL;
	can->allocated += bytes;
	return block_new(can, bytes);
}

/* One field off the front of *in, folds included; false at the empty line or the end. */
static bool
field_take(struct slice *in, struct slice *raw)
{
	size_t n = 0;

	if (in->len == 0 || in->p[0] == '\r' || in->p[0] == '\n')
		return false;
	do {
		const char *lf = memchr(in->p + n, '\n', in->len - n);

		n = lf != NULL ? (size_t)(lf + 1 - in->p) : in->len;
	} while (n < in->len && (in->p[n] == ' ' || in->p[n] == '\t'));
	*raw = slice_head(*in, n);
	*in = slice_drop(*in, n);
	return true;
}

static struct slice
unfold(struct filter_tx *tx, struct slice raw)
{
	char *out = block_new(can_of(tx), raw.len + 1);
	size_t n = 0;

	for (size_t i = 0; i < raw.len; i++)
		if (raw.p[i] != '\r' && raw.p[i] != '\n')
			out[n++] = raw.p[i];
	return slice_trim(slice_of(out, n));
}

static bool
host_field(struct filter_tx *tx, size_t index, struct filter_field *out)
{
	const struct canned *can = can_of(tx);
	struct slice in = can->message;
	struct slice raw;

	if (can->n_fields > 0) {
		if (index < can->n_fields)
			*out = can->fields[index];
		return index < can->n_fields;
	}
	for (size_t i = 0; field_take(&in, &raw); i++) {
		if (i < index)
			continue;
		out->name = slice_trim(slice_until(raw, ':'));
		out->raw = raw;
		out->value = unfold(tx, slice_drop(raw, slice_until(raw, ':').len + 1));
		out->decoded = out->value;
		return true;
	}
	return false;
}

static bool
host_part(struct filter_tx *tx, size_t index, struct filter_part *out)
{
	struct canned *can = can_of(tx);
	struct slice in = can->message;
	struct slice raw;

	if (can->n_parts > 0 && index < can->n_parts)
		*out = can->parts[index];
	if (can->n_parts > 0 || index > 0)
		return index < can->n_parts;
	while (field_take(&in, &raw))
		continue;
	in = slice_drop(in, slice_starts(in, SLICE("\r\n")) ? 2 : 1);
	*out = (struct filter_part){ SLICE("text/plain"), SLICE(""), in, in };
	return true;
}

static enum filter_stage
host_stage(struct filter_tx *tx)
{
	return can_of(tx)->stage;
}

/* ---- what a filter says ---------------------------------------------------------------------- */

static void
host_score(struct filter_tx *tx, double score, struct slice name, struct slice why)
{
	struct canned *can = can_of(tx);
	struct canned_finding *finding;

	must(can->n_findings < CANNED_FINDINGS_MAX, "too many findings");
	finding = &can->findings[can->n_findings++];
	finding->score = score;
	keep(finding->name, sizeof(finding->name), name);
	keep(finding->why, sizeof(finding->why), why);
	can->score += score;
}

static void
host_verdict(struct filter_tx *tx, enum filter_verdict verdict, unsigned code,
    struct slice enhanced, struct slice text)
{
	struct canned *can = can_of(tx);

	can->n_verdicts++;
	can->verdict = verdict;
	can->code = code;
	keep(can->enhanced, sizeof(can->enhanced), enhanced);
	keep(can->text, sizeof(can->text), text);
}

static void
host_edit(struct filter_tx *tx, const struct filter_edit *edit)
{
	struct canned *can = can_of(tx);

	can->n_edits++;
	can->edit = *edit;
}

static void
host_auth_result(
    struct filter_tx *tx, struct slice method, struct slice result, struct slice properties)
{
	struct canned *can = can_of(tx);

	can->n_auth++;
	keep(can->method, sizeof(can->method), method);
	keep(can->result, sizeof(can->result), result);
	keep(can->properties, sizeof(can->properties), properties);
}

static const struct filter_host canned_host = {
	.size = sizeof(struct filter_host),
	.fact = host_fact,
	.reserve = host_reserve,
	.session = host_session,
	.envelope = host_envelope,
	.message = host_message,
	.field = host_field,
	.part = host_part,
	.score = host_score,
	.verdict = host_verdict,
	.edit = host_edit,
	.auth_result = host_auth_result,
	.alloc = host_alloc,
	.stage = host_stage,
};

/* ---- running --------------------------------------------------------------------------------- */

static void
blocks_free(struct canned *can)
{
	struct block *next;

	for (struct block *block = can->blocks; block != NULL; block = next) {
		next = block->next;
		free(block);
	}
	can->blocks = NULL;
	can->allocated = 0;
}

static void
forget_findings(struct canned *can)
{
	blocks_free(can);
	can->score = 0;
	can->n_findings = can->n_verdicts = can->n_auth = can->n_edits = 0;
	can->code = 0;
	can->enhanced[0] = can->text[0] = '\0';
	can->method[0] = can->result[0] = can->properties[0] = '\0';
}

void
canned_init(struct canned *can)
{
	const struct slice none = SLICE("");

	memset(can, 0, sizeof(*can));
	can->tx.host = &canned_host;
	can->session = (struct filter_session){
		.size = sizeof(can->session),
		.client_addr = none,
		.client_ip = none,
		.helo = none,
		.auth_user = none,
		.listener = SLICE("mx"),
		.hostname = SLICE("mx.example.org"),
		.session_id = SLICE("session0"),
	};
	can->envelope = (struct filter_envelope){
		.size = sizeof(can->envelope),
		.reverse_path = none,
		.id = SLICE("message0"),
	};
	can->stage = FILTER_MESSAGE;
	can->message = none;
	can->unknown = FACT_NONE;
	can->reserve = 1;
	can->budget = BUDGET_BYTES;
	can->asked = calloc(CANNED_FACTS_MAX, sizeof(*can->asked));
	must(can->asked != NULL, "out of memory");
	forget_findings(can);
}

void
canned_fini(struct canned *can)
{
	blocks_free(can);
	for (size_t i = 0; i < can->n_asked; i++)
		free((void *)(uintptr_t)can->asked[i].fact.values);
	free(can->asked);
	can->asked = NULL;
}

void
canned_facts(struct canned *can, const struct canned_fact *rows, size_t n)
{
	can->facts = rows;
	can->n_facts = n;
}

void
canned_client(struct canned *can, const char *ip)
{
	size_t len = strchr(ip, ':') != NULL ? 16 : 4;

	must(inet_pton(len == 16 ? AF_INET6 : AF_INET, ip, can->client_addr) == 1, ip);
	must(strlen(ip) < sizeof(can->client_ip), ip);
	memcpy(can->client_ip, ip, strlen(ip) + 1);
	can->session.client_addr = slice_of(can->client_addr, len);
	can->session.client_ip = slice_str(can->client_ip);
}

enum filter_status
canned_step(struct canned *can, const struct filter *filter, const void *settings)
{
	forget_findings(can);
	can->runs++;
	return filter->run(&can->tx, settings);
}

enum filter_status
canned_run(struct canned *can, const struct filter *filter, const void *settings)
{
	can->runs = 0;
	for (;;) {
		size_t known = can->n_limits;
		enum filter_status status = canned_step(can, filter, settings);
		bool fetched = can->n_limits > known;

		if (status != FILTER_WAIT)
			return status;
		for (size_t i = 0; i < can->n_asked; i++) {
			if (can->asked[i].ready)
				continue;
			answer(can, &can->asked[i]);
			fetched = true;
		}
		must(fetched, "a filter waits for nothing");
		must(can->runs < CANNED_RUNS_MAX, "a filter never comes to an end");
	}
}

const struct canned_finding *
canned_finding(const struct canned *can, const char *name)
{
	for (size_t i = 0; i < can->n_findings; i++)
		if (strcmp(can->findings[i].name, name) == 0)
			return &can->findings[i];
	return NULL;
}

bool
canned_asked(const struct canned *can, enum fact_kind kind, const char *name)
{
	return asked_find(can, kind, name) != NULL;
}

/* ---- a section of the config ----------------------------------------------------------------- */

static struct canned_config *
config_of(const struct filter_config *cfg)
{
	return (struct canned_config *)(uintptr_t)cfg;
}

static const char *
config_value(const struct filter_config *cfg, const char *option, size_t index)
{
	const struct canned_config *cc = config_of(cfg);

	for (size_t i = 0; i < cc->n_options; i++)
		if (strcmp(cc->options[i].option, option) == 0 && index-- == 0)
			return cc->options[i].value;
	return NULL;
}

static const char *
config_file(const struct filter_config *cfg, const char *option, size_t index, struct slice *bytes)
{
	const struct canned_config *cc = config_of(cfg);

	for (size_t i = 0; i < cc->n_files; i++) {
		if (strcmp(cc->files[i].option, option) != 0 || index-- != 0)
			continue;
		*bytes = cc->files[i].bytes;
		return cc->files[i].path;
	}
	return NULL;
}

static void
said(struct canned_config *cc, const char *where, unsigned line, const char *text)
{
	size_t used = strlen(cc->said);

	if (line > 0)
		(void)snprintf(
		    cc->said + used, sizeof(cc->said) - used, "%s:%u: %s\n", where, line, text);
	else
		(void)snprintf(cc->said + used, sizeof(cc->said) - used, "%s: %s\n", where, text);
}

static int
config_fail(const struct filter_config *cfg, const char *option, const char *file, unsigned line,
    const char *text)
{
	struct canned_config *cc = config_of(cfg);

	cc->failures++;
	said(cc, file != NULL ? file : option != NULL ? option : cfg->name, line, text);
	return -1;
}

static void
config_warn(const struct filter_config *cfg, const char *file, unsigned line, const char *text)
{
	struct canned_config *cc = config_of(cfg);

	cc->warnings++;
	said(cc, file != NULL ? file : cfg->name, line, text);
}

/* The leading number of text and its one-letter unit. */
static bool
number_unit(const char *text, double *number, char *unit)
{
	char *end;

	*number = strtod(text, &end);
	*unit = *end;
	return end != text && (*end == '\0' || end[1] == '\0');
}

static bool
config_duration(const char *text, uint32_t *seconds)
{
	static const char units[] = "smhd";
	static const uint32_t scale[] = { 1, 60, 3600, 86400 };
	const char *at;
	double number;
	char unit;

	if (!number_unit(text, &number, &unit) || unit == '\0' || number < 0 || number > 1e5)
		return false;
	at = strchr(units, unit);
	if (at == NULL)
		return false;
	*seconds = (uint32_t)number * scale[at - units];
	return true;
}

static bool
config_bytes(const char *text, uint64_t *bytes)
{
	double number;
	char unit;

	if (!number_unit(text, &number, &unit) || number < 0 || number > 1e15)
		return false;
	*bytes = (uint64_t)number;
	if (unit == 'K')
		*bytes <<= 10;
	else if (unit == 'M')
		*bytes <<= 20;
	else if (unit == 'G')
		*bytes <<= 30;
	return unit == '\0' || strchr("KMG", unit) != NULL;
}

static bool
config_number(const char *text, double *number)
{
	char unit;

	return number_unit(text, number, &unit) && unit == '\0';
}

void
canned_config(
    struct canned_config *cc, const char *name, const struct canned_option *options, size_t n)
{
	memset(cc, 0, sizeof(*cc));
	cc->cfg = (struct filter_config){
		.size = sizeof(cc->cfg),
		.name = name,
		.value = config_value,
		.file = config_file,
		.fail = config_fail,
		.warn = config_warn,
		.duration = config_duration,
		.bytes = config_bytes,
		.number = config_number,
	};
	cc->options = options;
	cc->n_options = n;
}

int
canned_configure(struct canned_config *cc, const struct filter *filter, void **settings)
{
	int rc;

	*settings = NULL;
	rc = filter->configure(&cc->cfg, settings);
	must(rc == 0 || rc == -1, "configure returns 0 or -1");
	must((rc < 0) == (cc->failures > 0), "configure fails with a word, and only then");
	return rc;
}
