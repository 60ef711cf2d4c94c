/* face - all that callers of the protocol include: the runtime, the simulator, the tests.
 *
 * Threads call   access.h (faults, pins), lock.h, counter.h, event.h, meeting.h, prefetch.h, collection_request
 * Messages       node.h
 * Diagnosis      roll.h, trail.h, check.h
 * The rest is read: regions and pages, statistics, what is under way.
 */
#pragma once

#include "protocol/coherence/alone.h"
#include "protocol/coherence/bulk.h"
#include "protocol/coherence/changes.h"
#include "protocol/coherence/fetch.h"
#include "protocol/coherence/pin.h"
#include "protocol/coherence/preopened.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/writes.h"
#include "protocol/node/access.h"
#include "protocol/node/check.h"
#include "protocol/node/node.h"
#include "protocol/page/history.h"
#include "protocol/page/interval.h"
#include "protocol/page/region.h"
#include "protocol/predict/prefetch.h"
#include "protocol/predict/update.h"
#include "protocol/sync/collection.h"
#include "protocol/sync/counter.h"
#include "protocol/sync/event.h"
#include "protocol/sync/flag.h"
#include "protocol/sync/lock.h"
#include "protocol/sync/meeting.h"
#include "protocol/sync/races.h"
#include "protocol/sync/roll.h"
#include "protocol/sync/trail.h"
