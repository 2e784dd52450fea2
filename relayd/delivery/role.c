/* relayd/delivery/role.c - the delivery role as the supervisor knows it. */
#include "relayd/delivery/control.h"
#include "relayd/delivery/delivery.h"
#include "relayd/supervisor/role.h"

static int
role_start(struct role *role, struct err *err)
{
	const struct delivery_options options = { .loop = role->loop,
		.cfg = role->config,
		.shared = role->shared,
		.poke_fd = role->poke_fd,
		.lock_wait_ms = DELIVERY_LOCK_WAIT_MS };
	struct delivery *d = delivery_open(&options, err);

	if (d == NULL)
		return -1;
	role->state = d;
	for (size_t i = 0; i < role->n_listeners; i++)
		if (role->listeners[i].kind == ROLE_LISTENER_CONTROL)
			return delivery_control(d, role->listeners[i].fd, (uid_t)-1, err);
	return 0;
}

static int
role_reload(struct role *role, const struct config *old, struct err *err)
{
	(void)old; /* delivery keeps its own reference */
	return delivery_reload(role->state, role->config, err);
}

static void
on_drained(void *data)
{
	role_finished(data);
}

static void
role_drain(struct role *role)
{
	delivery_drain(role->state, on_drained, role);
}

static void
role_stop(struct role *role)
{
	delivery_close(role->state);
	role->state = NULL;
}

const struct role_ops delivery_role = {
	.start = role_start,
	.reload = role_reload,
	.drain = role_drain,
	.stop = role_stop,
};
