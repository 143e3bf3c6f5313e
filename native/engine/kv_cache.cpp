#include "kv_cache.h"

#include <algorithm>
#include <climits>
#include <cstring>

namespace pocketglm {

namespace {

// Calls body(page, offset of the tile, index of the first row in a saved array, rows) for the tiles that
// hold `length` positions; saved arrays are [blocks, length, kv_heads] rows.
template <typename Body>
void each_tile(const KvLayout& layout, int length, Body body) {
    for (int block = 0; block < layout.blocks; ++block) {
        for (int head = 0; head < layout.kv_heads; ++head) {
            for (int first = 0; first < length; first += KvLayout::PAGE) {
                const std::size_t row =
                    (static_cast<std::size_t>(block) * length + first) * layout.kv_heads + head;
                body(first / KvLayout::PAGE, layout.tile_offset(block, head), row,
                     std::min(KvLayout::PAGE, length - first));
            }
        }
    }
}

}  // namespace

void SequenceCache::reserve(const KvLayout& layout, MemoryAccount& account, int count) {
    if (count > INT_MAX - KvLayout::PAGE - length_) throw Failure(PGLM_MEMORY, "the sequence is too long");
    const std::size_t needed = KvLayout::pages_for(length_ + count);
    const std::size_t before = pages_.size();
    try {
        pages_.reserve(needed);
        addresses_.reserve(needed);
        while (pages_.size() < needed) {
            pages_.emplace_back(account, layout.page_bytes(), "KV cache");
            addresses_.push_back(pages_.back().data());
        }
    } catch (...) {
        pages_.resize(std::min(before, pages_.size()));
        addresses_.resize(pages_.size());
        throw;
    }
}

void SequenceCache::truncate(int length) {
    length_ = length;
    const std::size_t kept = std::min<std::size_t>(pages_.size(), KvLayout::pages_for(length) + 1);
    pages_.resize(kept);
    addresses_.resize(kept);
}

void SequenceCache::copy_from(const SequenceCache& source, const KvLayout& layout, MemoryAccount& account,
                              int length) {
    reserve(layout, account, length);
    for (int page = 0; page < KvLayout::pages_for(length); ++page) {
        std::memcpy(addresses_[page], source.addresses_[page], layout.page_bytes());
    }
    commit(length);
}

void SequenceCache::save(const KvLayout& layout, const DecoderMath& math, float* keys, float* values) const {
    const std::size_t stride = static_cast<std::size_t>(layout.kv_heads) * layout.head_dim;
    each_tile(layout, length_, [&](int page, std::size_t offset, std::size_t row, int count) {
        math.load_rows(layout, addresses_[page] + offset, 0, keys + row * layout.head_dim,
                       values + row * layout.head_dim, stride, count);
    });
}

void SequenceCache::restore(const KvLayout& layout, const DecoderMath& math, MemoryAccount& account,
                            int length, const float* keys, const float* values) {
    reserve(layout, account, length);
    const std::size_t stride = static_cast<std::size_t>(layout.kv_heads) * layout.head_dim;
    each_tile(layout, length, [&](int page, std::size_t offset, std::size_t row, int count) {
        math.store_rows(layout, addresses_[page] + offset, 0, keys + row * layout.head_dim,
                        values + row * layout.head_dim, stride, count);
    });
    commit(length);
}

}  // namespace pocketglm
