/* Few members are enough: each is the root of a tree of its own. */
#include "protocol/page/crowd.h"

static uint64_t version_of(const struct page *page)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < page->have.count; i++)
        sum += vector_at(&page->have, i).stamp;
    return sum;
}

static struct crowd_member *member(struct crowd *crowd, node_id node)
{
    for (uint32_t i = 0; i < crowd->count; i++)
        if (crowd->members[i].node == node)
            return &crowd->members[i];
    return NULL;
}

const struct crowd_member *crowd_turn(struct page *page, node_id reader, uint32_t most, node_id preferred)
{
    struct crowd *crowd = page->extension ? page->extension->crowd : NULL;
    bool known = crowd && crowd->version == version_of(page);
    if (!known || crowd->served < most || member(crowd, reader))
        return NULL; /* a member that asks again has lost its copy */
    struct crowd_member *in_turn = &crowd->members[crowd->served++ % crowd->count];
    struct crowd_member *same = member(crowd, preferred);
    return same ? same : in_turn;
}

void crowd_add(struct page *page, struct pool *pool, node_id reader, stamp asked)
{
    struct page_extension *extension = page_extension(page, pool);
    uint64_t version = version_of(page);
    if (!extension->crowd)
        extension->crowd = pool_take_zeroed(pool, sizeof *extension->crowd);
    if (extension->crowd->version != version)
        *extension->crowd = (struct crowd){.version = version};
    struct crowd *crowd = extension->crowd;
    struct crowd_member *there = member(crowd, reader);
    crowd->served++;
    if (there)
        there->asked = asked;
    else if (crowd->count < CROWD_MEMBERS)
        crowd->members[crowd->count++] = (struct crowd_member){.asked = asked, .node = reader};
}

void crowd_forget(struct page *page, struct pool *pool)
{
    if (!page->extension || !page->extension->crowd)
        return;
    pool_give(pool, page->extension->crowd, sizeof *page->extension->crowd);
    page->extension->crowd = NULL;
    page_tidy(page, pool);
}
