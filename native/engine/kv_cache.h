// The KV cache of one sequence in one stage: pages of positions, each for all blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "decoder_math.h"
#include "kv_layout.h"
#include "memory.h"

namespace pocketglm {

class SequenceCache {
  public:
    int length() const { return length_; }
    const std::uint8_t* const* pages() const { return addresses_.data(); }
    std::uint8_t* page(int index) const { return addresses_[index]; }

    // Makes room for `count` more positions. Throws `Failure`, the content unchanged.
    void reserve(const KvLayout& layout, MemoryAccount& account, int count);
    // Counts positions in that every block has written.
    void commit(int count) { length_ += count; }
    // Forgets positions from `length` on, and their memory but for one page of room.
    void truncate(int length);
    // Appends the first `length` positions of `source` to this empty cache.
    void copy_from(const SequenceCache& source, const KvLayout& layout, MemoryAccount& account, int length);
    // float32 [blocks, length, kv_heads, head_dim] each.
    void save(const KvLayout& layout, const DecoderMath& math, float* keys, float* values) const;
    void restore(const KvLayout& layout, const DecoderMath& math, MemoryAccount& account, int length,
                 const float* keys, const float* values);

  private:
    std::vector<Buffer> pages_;
    std::vector<std::uint8_t*> addresses_;
    int length_ = 0;
};

}  // namespace pocketglm
