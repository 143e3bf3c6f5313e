#include "positions.h"

#include <algorithm>
#include <string>

#include "refusal.h"

namespace pocketglm::executable {

std::vector<std::int32_t> Positions::advance(const std::int32_t* tokens, int count) {
    if (spec_->has_prefix && length_ == 0) find_context(tokens, count);
    std::vector<std::int32_t> positions;
    for (std::int32_t axis = 0; axis < spec_->rotary_axes; ++axis) {
        for (int index = length_; index < length_ + count; ++index) {
            if (!spec_->has_prefix) {
                positions.push_back(index);
            } else if (axis == 0) {
                positions.push_back(index < context_ ? index : mask_index_);
            } else {
                positions.push_back(std::max(index - (context_ - 1), 0));
            }
        }
    }
    length_ += count;
    return positions;
}

void Positions::truncate(int length) {
    if (length < 0 || length > length_ || (length > 0 && length < context_))
        throw Refusal("internal", "cannot truncate to " + std::to_string(length));
    length_ = length;
    if (length == 0) context_ = mask_index_ = 0;
}

void Positions::find_context(const std::int32_t* tokens, int count) {
    const std::int32_t* end = tokens + count;
    const std::int32_t* sop = std::find(tokens, end, spec_->sop_token);
    const std::string hint = "end the prompt with the ids " + std::to_string(spec_->gmask_token) +
                             " ([gMASK]) and " + std::to_string(spec_->sop_token) + " (<sop>)";
    if (sop == end) {
        throw Refusal("request", "the prompt lacks <sop> (id " + std::to_string(spec_->sop_token) + ")",
                      hint);
    }
    for (const std::int64_t mask : {spec_->gmask_token, spec_->mask_token}) {
        const std::int32_t* found = std::find(tokens, sop, mask);
        if (found == sop) continue;
        context_ = static_cast<int>(sop - tokens);
        mask_index_ = static_cast<int>(found - tokens);
        return;
    }
    throw Refusal("request", "no [gMASK] or [MASK] before <sop>", hint);
}

}  // namespace pocketglm::executable
