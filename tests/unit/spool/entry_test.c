/* tests/unit/spool/entry_test.c - entries of the journal as they are shown to a person. */
#include "relayd/spool/entry.h"

#include "unit/unit.h"

#include <stdio.h>

static char told[2000];

static void
note(void *data, const char *text)
{
	(void)data;
	(void)snprintf(told + strlen(told), sizeof(told) - strlen(told), "%s\n", text);
}

START_TEST(every_entry_is_told)
{
	char via[] = "mail3.corp:25";
	struct index_log log = { .number = 7 };
	struct index_segment seg = { .log = &log, .number = 2 };
	struct index_rcpt rcpt = { .ordinal = 1,
		.attempts = 3,
		.tried_ms = 10,
		.next_ms = 20,
		.reply = SLICE("450 later\t") };
	struct index_msg msg = {
		.segment = &seg, .place = 512, .flags = INDEX_HELD | INDEX_WARNED, .via = via
	};
	struct index_msg free_again = { .segment = &seg, .place = 513 };
	char storage[1000];
	struct buf out = buf_over(storage, sizeof(storage));

	entry_done(&out, &seg, 512);
	entry_rcpt(&out, &msg, &rcpt);
	entry_order(&out, &msg);
	entry_order(&out, &free_again);
	free_again.flags = INDEX_COPIED;
	entry_order(&out, &free_again);
	entry_copy(&out, &free_again);
	entry_moved(&out, &seg, 512, &seg, 1024);
	entry_retired(&out, &seg);
	entry_gone(&out, &seg);
	entry_log_gone(&out, &log);
	told[0] = '\0';
	entry_tell(buf_slice(&out), note, NULL);
	ck_assert_str_eq(told, "done: log 7 segment 2 at 4096\n"
			       "log 7 segment 2 at 4096 recipient 1 pending, attempts 3, tried 10, "
			       "next 20: 450 later?\n"
			       "order: log 7 segment 2 at 4096 held warned via mail3.corp:25\n"
			       "order: log 7 segment 2 at 4104\n"
			       "order: log 7 segment 2 at 4104\n"
			       "order: log 7 segment 2 at 4104 copied\n"
			       "moved: log 7 segment 2 at 4096 to log 7 segment 2 at 8192\n"
			       "retired: log 7 segment 2\n"
			       "gone: log 7 segment 2\n"
			       "log gone: 7\n");
}
END_TEST

UNIT_SUITE(spool_entry)
{
	UNIT_TEST(every_entry_is_told);
}
