/* relayd/core/io_disk.h - the real disk, which io.h uses unless told otherwise. */
#ifndef RELAYD_CORE_IO_DISK_H
#define RELAYD_CORE_IO_DISK_H

#include "relayd/core/io.h"

extern const struct io_ops io_disk;

#endif
