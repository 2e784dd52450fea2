/* filters/rules/regex.c - compiles and matches the patterns of rules with PCRE2. */
#include "filters/rules/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <threads.h>

struct rules_regex {
	pcre2_code *code;
	bool jit;
};

/* What one thread needs to match, whatever the pattern. */
struct scratch {
	pcre2_match_data *data;
	pcre2_match_context *context;
	pcre2_jit_stack *stack;
};

static _Thread_local struct scratch *scratch;
static tss_t scratch_key;
static once_flag scratch_once = ONCE_FLAG_INIT;

/* ---- literals -------------------------------------------------------------------------------- */

/* Perl's flags and what PCRE2 calls them; 0: there is nothing to do for it on bytes. */
static bool
flag_option(char flag, uint32_t *options)
{
	switch (flag) {
	case 'i':
		*options |= PCRE2_CASELESS;
		return true;
	case 'm':
		*options |= PCRE2_MULTILINE;
		return true;
	case 's':
		*options |= PCRE2_DOTALL;
		return true;
	case 'x':
		*options |= *options & PCRE2_EXTENDED ? PCRE2_EXTENDED_MORE : PCRE2_EXTENDED;
		return true;
	case 'n':
		*options |= PCRE2_NO_AUTO_CAPTURE;
		return true;
	case 'a': /* ASCII classes, and /aa: the only ones there are without UTF */
	case 'd':
	case 'l':
	case 'u':
	case 'p': /* about captures, or about matching again and again */
	case 'o':
	case 'g':
	case 'c':
		return true;
	default:
		return false;
	}
}

static char
closing(char opening)
{
	switch (opening) {
	case '{':
		return '}';
	case '(':
		return ')';
	case '<':
		return '>';
	case '[':
		return ']';
	default:
		return opening;
	}
}

static bool
is_word(char c)
{
	return (slice_lower(c) >= 'a' && slice_lower(c) <= 'z') || (c >= '0' && c <= '9') ||
	       c == '_';
}

/* Takes the delimiter that opens a literal off its front: "/", "m{", "qr!".  '\0' without one. */
static char
opening_take(struct slice *literal)
{
	char c;

	if (slice_starts(*literal, SLICE("m")))
		*literal = slice_drop(*literal, 1);
	else if (slice_starts(*literal, SLICE("qr")))
		*literal = slice_drop(*literal, 2);
	else if (!slice_starts(*literal, SLICE("/")))
		return '\0';
	c = literal->len > 0 ? literal->p[0] : '\0';
	*literal = slice_drop(*literal, 1);
	return is_word(c) || c == '\\' || c == ' ' ? '\0' : c;
}

static bool
has_bare(struct slice pattern, char delimiter)
{
	for (size_t i = 0; i < pattern.len; i++) {
		if (pattern.p[i] == '\\')
			i++;
		else if (pattern.p[i] == delimiter)
			return true;
	}
	return false;
}

/* Splits "m{pattern}is"; NULL, or what is wrong. */
static const char *
literal_split(struct slice literal, struct slice *pattern, uint32_t *options)
{
	char open = opening_take(&literal), close = closing(open);
	size_t end = literal.len;

	if (open == '\0')
		return "a pattern starts with \"/\", or with \"m\" and a delimiter";
	while (end > 0 && literal.p[end - 1] >= 'a' && literal.p[end - 1] <= 'z')
		end--;
	if (end == 0 || literal.p[end - 1] != close)
		return "the pattern does not end with its delimiter and flags";
	*pattern = slice_head(literal, end - 1);
	for (; end < literal.len; end++)
		if (!flag_option(literal.p[end], options))
			return "unknown flag behind the pattern";
	if (open == close && has_bare(*pattern, close))
		return "the delimiter stands in the pattern without a backslash";
	return pattern->len > 0 ? NULL : "an empty pattern matches everything";
}

/* ---- compiling ------------------------------------------------------------------------------- */

static pcre2_compile_context *
compile_context(void)
{
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);

	if (context == NULL)
		return NULL;
	/* As Perl has it, whatever PCRE2 was built with; these cannot fail. */
	(void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	(void)pcre2_set_compile_extra_options(context, PCRE2_EXTRA_BAD_ESCAPE_IS_LITERAL);
	return context;
}

struct rules_regex *
rules_regex_new(struct slice literal, char *why, size_t cap)
{
	uint32_t options =
	    PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_DUPNAMES;
	struct rules_regex *re = calloc(1, sizeof(*re));
	pcre2_compile_context *context = compile_context();
	struct slice pattern = SLICE("");
	const char *wrong = literal_split(literal, &pattern, &options);
	PCRE2_SIZE offset = 0;
	int code = 0;

	if (wrong == NULL && (re == NULL || context == NULL))
		wrong = "out of memory";
	if (wrong == NULL)
		re->code = pcre2_compile(
		    (PCRE2_SPTR)pattern.p, pattern.len, options, &code, &offset, context);
	pcre2_compile_context_free(context);
	if (wrong == NULL && re->code != NULL) {
		/* Where there is no JIT, the interpreter keeps the same limits. */
		re->jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0;
		return re;
	}
	free(re);
	if (wrong != NULL) {
		(void)snprintf(why, cap, "%s", wrong);
	} else {
		unsigned char message[128];

		(void)pcre2_get_error_message(code, message, sizeof(message)); /* cut, at worst */
		(void)snprintf(why, cap, "%s at \"%.*s\"", message,
		    SLICE_FMT(slice_head(slice_drop(pattern, offset), 20)));
	}
	return NULL;
}

void
rules_regex_free(struct rules_regex *re)
{
	if (re != NULL)
		pcre2_code_free(re->code);
	free(re);
}

/* ---- matching -------------------------------------------------------------------------------- */

static void
scratch_free(void *p)
{
	struct scratch *s = p;

	if (s == NULL)
		return;
	pcre2_match_data_free(s->data);
	pcre2_match_context_free(s->context);
	pcre2_jit_stack_free(s->stack);
	free(s);
}

static void
scratch_key_create(void)
{
	(void)tss_create(&scratch_key, scratch_free); /* without it a thread's end leaks */
}

static struct scratch *
scratch_new(void)
{
	struct scratch *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->data = pcre2_match_data_create(1, NULL);
	s->context = pcre2_match_context_create(NULL);
	s->stack = pcre2_jit_stack_create(32 * 1024, RULES_REGEX_JIT_STACK_MAX, NULL);
	if (s->data == NULL || s->context == NULL || s->stack == NULL) {
		scratch_free(s);
		return NULL;
	}
	/* These cannot fail. */
	(void)pcre2_set_match_limit(s->context, RULES_REGEX_STEPS_MAX);
	(void)pcre2_set_depth_limit(s->context, RULES_REGEX_DEPTH_MAX);
	(void)pcre2_set_heap_limit(s->context, RULES_REGEX_HEAP_KIB_MAX);
	pcre2_jit_stack_assign(s->context, NULL, s->stack);
	return s;
}

static struct scratch *
scratch_of_thread(void)
{
	if (scratch == NULL) {
		call_once(&scratch_once, scratch_key_create);
		scratch = scratch_new();
		(void)tss_set(scratch_key, scratch); /* as with tss_create() */
	}
	return scratch;
}

enum rules_match
rules_regex_match(const struct rules_regex *re, struct slice subject)
{
	struct scratch *s = scratch_of_thread();
	PCRE2_SPTR text = (PCRE2_SPTR)subject.p;
	int rc;

	if (s == NULL)
		return RULES_MATCH_LIMIT;
	rc = re->jit ? pcre2_jit_match(re->code, text, subject.len, 0, 0, s->data, s->context)
		     : pcre2_match(re->code, text, subject.len, 0, 0, s->data, s->context);
	if (rc == PCRE2_ERROR_NOMATCH)
		return RULES_MATCH_NO;
	return rc >= 0 ? RULES_MATCH_YES : RULES_MATCH_LIMIT;
}
