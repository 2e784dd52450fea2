/* tests/unit/delivery/upstream.h - what a test file stands on whose mail goes to one server that
 * takes it. */
#ifndef TESTS_UNIT_DELIVERY_UPSTREAM_H
#define TESTS_UNIT_DELIVERY_UPSTREAM_H

#include "unit/delivery/fixture.h"

static struct fixture f;
static struct sink *upstream;

/* For a test that starts delivery itself, later. */
static inline void
set_up_stopped(void)
{
	upstream = fixture_init_upstream(&f);
}

static inline void
set_up(void)
{
	set_up_stopped();
	fixture_start(&f);
}

static inline void
tear_down(void)
{
	fixture_fini(&f);
	sink_close(upstream);
}

/* Parts of a struct mail; SAFE is from somebody who may get a bounce. */
#define FROM .from = "sender@proven.test"
#define TO   .to = { "one@example.test" }
#define SAFE .flags = ENVELOPE_AUTHENTIC

#endif
