// The attention and outlier functions of one instruction set; see decoder_math.h for what they do.
#pragma once

#include "decoder_math.h"

namespace pocketglm::decoder::POCKETGLM_ISA {

void store_rows(const KvLayout& layout, std::uint8_t* page_head, int column, const float* keys,
                const float* values, std::size_t stride, int count);
void load_rows(const KvLayout& layout, const std::uint8_t* page_head, int column, float* keys, float* values,
               std::size_t stride, int count);
void attend(const AttentionTask& task);
void merge_attention(const AttentionTask& task, const float* partials, std::size_t part_stride, int parts);

void take_outliers(float* row, int count, float ratio, OutlierRow* found);
void add_outliers(const LinearView& linear, const OutlierRow* rows, int row_count, int first, int last,
                  float* out, std::size_t stride, void* scratch);

}  // namespace pocketglm::decoder::POCKETGLM_ISA
