/* Production throws no dice: both permilles are 0 there. */
#include "protocol/node/dice.h"

#include "protocol/coherence/preopened.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/writes.h"
#include "protocol/page/region.h"

void dice_open_pages(struct node *node)
{
    if (!node->policy.preopen_permille && !node->policy.guess_permille)
        return;
    for (uint32_t i = 0; i < node->regions->count; i++)
        for (struct page_block *block = node->regions->live[i]->touched; block; block = block->next)
            for (int k = 0; k < REGION_BLOCK_PAGES; k++) {
                struct page *page = &block->pages[k];
                if (page_index(page) < page_region(page)->pages &&
                    context_chance(node, node->policy.preopen_permille) && page_valid(page) && writes_open(node, page))
                    protection_set(node, page, ACCESS_WRITE);
                if (page_index(page) < page_region(page)->pages && context_chance(node, node->policy.guess_permille))
                    preopened_open(node, page, context_chance(node, 500));
            }
}
