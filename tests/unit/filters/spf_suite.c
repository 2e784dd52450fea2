/* tests/unit/filters/spf_suite.c - the YAML of the RFC 7208 test suite as cases, zones and
 * facts. */
#include "unit/filters/spf_suite.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <yaml.h>

#define CNAME_CHAIN_MAX 8

static void
must(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "spf suite: %s\n", what);
	abort();
}

static void *
grown(void *array, size_t n, size_t size)
{
	void *p = realloc(array, (n + 1) * size);

	must(p != NULL, "out of memory");
	memset((char *)p + n * size, 0, size);
	return p;
}

/* ---- YAML ------------------------------------------------------------------------------------ */

static struct slice
scalar(const yaml_node_t *node)
{
	if (node == NULL || node->type != YAML_SCALAR_NODE)
		return SLICE("");
	return slice_of(node->data.scalar.value, node->data.scalar.length);
}

/* The suite's \xNN are bytes, but YAML makes code points of them: back to Latin-1. */
static size_t
latin1(struct slice text, char *out, size_t cap)
{
	size_t n = 0;

	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.p[i];

		must(n < cap, "a value is too long");
		if (c >= 0xc0 && i + 1 < text.len)
			c = (unsigned char)((c & 3) << 6 | (text.p[++i] & 0x3f));
		out[n++] = (char)c;
	}
	return n;
}

static void
copy(const yaml_node_t *node, char *out, size_t cap)
{
	out[latin1(scalar(node), out, cap - 1)] = '\0';
}

static yaml_node_t *
member(yaml_document_t *doc, yaml_node_t *map, const char *key)
{
	if (map == NULL || map->type != YAML_MAPPING_NODE)
		return NULL;
	for (yaml_node_pair_t *pair = map->data.mapping.pairs.start;
	     pair < map->data.mapping.pairs.top; pair++)
		if (slice_eq(scalar(yaml_document_get_node(doc, pair->key)), slice_str(key)))
			return yaml_document_get_node(doc, pair->value);
	return NULL;
}

/* All items of a sequence; a scalar is its own only item. */
static size_t
items(yaml_document_t *doc, yaml_node_t *node, yaml_node_t **out, size_t cap)
{
	size_t n = 0;

	if (node != NULL && node->type == YAML_SCALAR_NODE)
		out[n++] = node;
	if (node == NULL || node->type != YAML_SEQUENCE_NODE)
		return n;
	for (yaml_node_item_t *item = node->data.sequence.items.start;
	     item < node->data.sequence.items.top; item++) {
		must(n < cap, "too many items");
		out[n++] = yaml_document_get_node(doc, *item);
	}
	return n;
}

/* ---- zones ----------------------------------------------------------------------------------- */

static struct spf_zone_entry *
entry_add(struct spf_suite *suite, const char *owner, const char *type)
{
	struct spf_zone_entry *entry;

	suite->zone = grown(suite->zone, suite->n_zone, sizeof(*suite->zone));
	entry = &suite->zone[suite->n_zone++];
	(void)snprintf(entry->owner, sizeof(entry->owner), "%s", owner);
	(void)snprintf(entry->type, sizeof(entry->type), "%s", type);
	return entry;
}

/* The strings of a TXT record glued together, or [preference, exchange] of an MX. */
static void
entry_fill(struct spf_zone_entry *entry, yaml_document_t *doc, yaml_node_t *value)
{
	yaml_node_t *parts[16];
	size_t n = items(doc, value, parts, 16), first = 0;

	if (strcmp(entry->type, "MX") == 0) {
		char number[16];

		must(n == 2, "an MX without preference");
		copy(parts[0], number, sizeof(number));
		entry->preference = atoi(number);
		first = 1;
	}
	entry->data = calloc(1, 4096);
	must(entry->data != NULL, "out of memory");
	for (size_t i = first; i < n; i++)
		entry->len += latin1(scalar(parts[i]), entry->data + entry->len, 4095 - entry->len);
}

static void
owner_load(struct spf_suite *suite, yaml_document_t *doc, const char *owner, yaml_node_t *records)
{
	yaml_node_t *list[64];
	size_t n = items(doc, records, list, 64);

	for (size_t i = 0; i < n; i++) {
		yaml_node_pair_t *pair;
		char type[16];

		if (list[i]->type == YAML_SCALAR_NODE) {
			copy(list[i], type, sizeof(type));
			entry_add(suite, owner, type);
			continue;
		}
		pair = list[i]->data.mapping.pairs.start;
		copy(yaml_document_get_node(doc, pair->key), type, sizeof(type));
		entry_fill(
		    entry_add(suite, owner, type), doc, yaml_document_get_node(doc, pair->value));
	}
}

static void
zone_load(struct spf_suite *suite, yaml_document_t *doc, yaml_node_t *zone)
{
	must(zone != NULL && zone->type == YAML_MAPPING_NODE, "a scenario without zone data");
	for (yaml_node_pair_t *pair = zone->data.mapping.pairs.start;
	     pair < zone->data.mapping.pairs.top; pair++) {
		char owner[300];

		copy(yaml_document_get_node(doc, pair->key), owner, sizeof(owner));
		owner_load(suite, doc, owner, yaml_document_get_node(doc, pair->value));
	}
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void
case_load(struct spf_case *test, yaml_document_t *doc, yaml_node_t *body)
{
	yaml_node_t *results[4];

	copy(member(doc, body, "host"), test->host, sizeof(test->host));
	copy(member(doc, body, "helo"), test->helo, sizeof(test->helo));
	copy(member(doc, body, "mailfrom"), test->mailfrom, sizeof(test->mailfrom));
	copy(member(doc, body, "explanation"), test->explanation, sizeof(test->explanation));
	test->n_allowed = items(doc, member(doc, body, "result"), results, 4);
	must(test->n_allowed > 0 && test->host[0] != '\0', "a case without host or result");
	for (size_t i = 0; i < test->n_allowed; i++)
		copy(results[i], test->allowed[i], sizeof(test->allowed[i]));
}

static void
scenario_load(struct spf_suite *suite, yaml_document_t *doc, size_t *zone_of)
{
	yaml_node_t *root = yaml_document_get_root_node(doc);
	yaml_node_t *tests = member(doc, root, "tests");
	size_t zone_start = suite->n_zone;

	must(tests != NULL && tests->type == YAML_MAPPING_NODE, "a scenario without tests");
	zone_load(suite, doc, member(doc, root, "zonedata"));
	for (yaml_node_pair_t *pair = tests->data.mapping.pairs.start;
	     pair < tests->data.mapping.pairs.top; pair++) {
		struct spf_case *test;

		must(suite->n_cases < 1000, "more cases than there are");
		suite->cases = grown(suite->cases, suite->n_cases, sizeof(*suite->cases));
		test = &suite->cases[suite->n_cases];
		zone_of[suite->n_cases++] = zone_start;
		copy(member(doc, root, "description"), test->scenario, sizeof(test->scenario));
		copy(yaml_document_get_node(doc, pair->key), test->name, sizeof(test->name));
		case_load(test, doc, yaml_document_get_node(doc, pair->value));
		test->n_zone = suite->n_zone - zone_start;
	}
}

bool
spf_suite_load(struct spf_suite *suite, const char *path)
{
	FILE *file = fopen(path, "rb");
	size_t zone_of[1000];
	yaml_parser_t parser;
	bool more = true;

	memset(suite, 0, sizeof(*suite));
	if (file == NULL)
		return false;
	must(yaml_parser_initialize(&parser) == 1, "out of memory");
	yaml_parser_set_input_file(&parser, file);
	while (more) {
		yaml_document_t doc;

		must(yaml_parser_load(&parser, &doc) == 1, "bad YAML");
		more = yaml_document_get_root_node(&doc) != NULL;
		if (more)
			scenario_load(suite, &doc, zone_of);
		yaml_document_delete(&doc);
	}
	for (size_t i = 0; i < suite->n_cases; i++) /* the array does not move any more */
		suite->cases[i].zone = suite->zone + zone_of[i];
	yaml_parser_delete(&parser);
	(void)fclose(file); /* read only */
	return true;
}

void
spf_suite_free(struct spf_suite *suite)
{
	for (size_t i = 0; i < suite->n_zone; i++)
		free(suite->zone[i].data);
	free(suite->zone);
	free(suite->cases);
}

bool
spf_case_allows(const struct spf_case *test, const char *result)
{
	for (size_t i = 0; i < test->n_allowed; i++)
		if (strcmp(test->allowed[i], result) == 0)
			return true;
	return false;
}

/* ---- facts ----------------------------------------------------------------------------------- */

void
spf_arpa_name(const char *ip, char out[static 80])
{
	unsigned char addr[16];
	int n = 0;

	if (inet_pton(AF_INET6, ip, addr) != 1) {
		must(inet_pton(AF_INET, ip, addr) == 1, ip);
		(void)snprintf(
		    out, 80, "%u.%u.%u.%u.in-addr.arpa", addr[3], addr[2], addr[1], addr[0]);
		return;
	}
	for (size_t i = 16; i-- > 0;)
		n += snprintf(
		    out + n, 80 - (size_t)n, "%X.%X.", addr[i] & 15u, (unsigned)addr[i] >> 4);
	(void)snprintf(out + n, 80 - (size_t)n, "ip6.arpa");
}

static const struct spf_zone_entry *
find(const struct spf_case *test, const char *owner, const char *type)
{
	for (size_t i = 0; i < test->n_zone; i++)
		if (strcasecmp(test->zone[i].owner, owner) == 0 &&
		    strcmp(test->zone[i].type, type) == 0)
			return &test->zone[i];
	return NULL;
}

/* The name behind a chain of CNAMEs without the final dot; NULL for a loop. */
static const char *
canonical(const struct spf_case *test, const char *owner, char buf[static 300])
{
	(void)snprintf(buf, 300, "%s", owner);
	for (int i = 0; i < CNAME_CHAIN_MAX; i++) {
		const struct spf_zone_entry *cname = find(test, buf, "CNAME");

		if (cname == NULL)
			return buf;
		(void)snprintf(buf, 300, "%s", cname->data);
		if (buf[0] != '\0' && buf[strlen(buf) - 1] == '.')
			buf[strlen(buf) - 1] = '\0';
	}
	return NULL;
}

struct rows {
	struct canned_fact *rows;
	size_t n;
};

static void
row_add(struct rows *to, enum fact_kind kind, const char *name, const struct spf_zone_entry *entry)
{
	struct canned_fact *row;

	to->rows = grown(to->rows, to->n, sizeof(*to->rows));
	row = &to->rows[to->n++];
	*row = (struct canned_fact){ .kind = kind, .name = name, .state = FACT_FAILED };
	row->bytes = SLICE("");
	if (entry == NULL)
		return;
	row->state = FACT_OK;
	row->number = entry->preference;
	row->bytes = slice_of(entry->data, entry->len);
}

/* SPF records are served as TXT, unless the owner has TXT records of its own. */
static bool
serves(const struct spf_case *test, const struct spf_zone_entry *entry, const char *type)
{
	if (strcmp(type, "TXT") == 0 && strcmp(entry->type, "SPF") == 0)
		return find(test, entry->owner, "TXT") == NULL;
	return strcmp(entry->type, type) == 0 &&
	       !(strcmp(type, "TXT") == 0 && strcmp(entry->data, "NONE") == 0);
}

static void
facts_of(const struct spf_case *test, struct rows *to, enum fact_kind kind, const char *type,
    const char *name, const char *owner)
{
	char buf[300];
	const char *real = canonical(test, owner, buf);
	size_t before = to->n;

	for (size_t i = 0; real != NULL && i < test->n_zone; i++)
		if (strcasecmp(test->zone[i].owner, real) == 0 &&
		    serves(test, &test->zone[i], type))
			row_add(to, kind, name, &test->zone[i]);
	if (real == NULL || (to->n == before && find(test, real, "TIMEOUT") != NULL))
		row_add(to, kind, name, NULL);
}

/* Addresses as the wire has them, in place of their text. */
static void
addresses_to_bytes(struct rows *to)
{
	static char addresses[4096][16];
	static size_t used;

	for (size_t i = 0; i < to->n; i++) {
		struct canned_fact *row = &to->rows[i];
		char text[64];

		if (row->state != FACT_OK || row->kind > FACT_DNS_AAAA)
			continue;
		used = (used + 1) % 4096;
		(void)snprintf(text, sizeof(text), "%.*s", SLICE_FMT(row->bytes));
		must(inet_pton(
			 row->kind == FACT_DNS_A ? AF_INET : AF_INET6, text, addresses[used]) == 1,
		    text);
		row->bytes = slice_of(addresses[used], row->kind == FACT_DNS_A ? 4 : 16);
	}
}

size_t
spf_suite_facts(const struct spf_case *test, struct canned_fact **rows)
{
	struct rows to = { NULL, 0 };
	char arpa[80];

	for (size_t i = 0; i < test->n_zone; i++) {
		const char *owner = test->zone[i].owner;
		bool again = false;

		for (size_t k = 0; k < i && !again; k++)
			again = strcasecmp(test->zone[k].owner, owner) == 0;
		if (again)
			continue;
		facts_of(test, &to, FACT_DNS_A, "A", owner, owner);
		facts_of(test, &to, FACT_DNS_AAAA, "AAAA", owner, owner);
		facts_of(test, &to, FACT_DNS_TXT, "TXT", owner, owner);
		facts_of(test, &to, FACT_DNS_MX, "MX", owner, owner);
	}
	addresses_to_bytes(&to);
	spf_arpa_name(test->host, arpa);
	facts_of(test, &to, FACT_DNS_PTR, "PTR", "", arpa);
	for (size_t i = 0; i < to.n; i++)
		if (to.rows[i].kind == FACT_DNS_PTR)
			to.rows[i].name = test->host;
	*rows = to.rows;
	return to.n;
}
