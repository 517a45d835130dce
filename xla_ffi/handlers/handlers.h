// All FFI handlers and the names of their targets.
#ifndef SPARSEJAX_HANDLERS_HANDLERS_H_
#define SPARSEJAX_HANDLERS_HANDLERS_H_

#include <cstdint>

#include "xla/ffi/api/ffi.h"

namespace sparsejax {

XLA_FFI_DECLARE_HANDLER_SYMBOL(SpmmHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(SpmmTHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(SddmmHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(SpmmBackwardHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(ConvHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(ConvInputGradHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(ConvWeightGradHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(ConvBackwardHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(ChannelSumHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(ChannelDotHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(SumPoolHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(SumUnpoolHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(MaxPoolHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(MaxTakeHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(MaxPutHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(BatchNormHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(BatchNormGradHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(AttentionHandler);
XLA_FFI_DECLARE_HANDLER_SYMBOL(AttentionGradHandler);

// Bytes of the plans of convolutions that are kept for later calls.
int64_t PlanBytes();

struct Target {
  const char* name;
  XLA_FFI_Handler* handler;
};

// The version in a name changes whenever operands, attributes or their meaning change, because exported programs
// contain the names.
constexpr Target kTargets[] = {
    {"sparsejax_spmm_v2", SpmmHandler},
    {"sparsejax_spmm_t_v2", SpmmTHandler},
    {"sparsejax_sddmm_v2", SddmmHandler},
    {"sparsejax_spmm_backward_v2", SpmmBackwardHandler},
    {"sparsejax_conv_v2", ConvHandler},
    {"sparsejax_conv_input_grad_v2", ConvInputGradHandler},
    {"sparsejax_conv_weight_grad_v2", ConvWeightGradHandler},
    {"sparsejax_conv_backward_v2", ConvBackwardHandler},
    {"sparsejax_channel_sum_v2", ChannelSumHandler},
    {"sparsejax_channel_dot_v2", ChannelDotHandler},
    {"sparsejax_sum_pool_v2", SumPoolHandler},
    {"sparsejax_sum_unpool_v2", SumUnpoolHandler},
    {"sparsejax_max_pool_v2", MaxPoolHandler},
    {"sparsejax_max_take_v2", MaxTakeHandler},
    {"sparsejax_max_put_v2", MaxPutHandler},
    {"sparsejax_batch_norm_v2", BatchNormHandler},
    {"sparsejax_batch_norm_grad_v2", BatchNormGradHandler},
    {"sparsejax_attention_v1", AttentionHandler},
    {"sparsejax_attention_grad_v1", AttentionGradHandler},
};

// Targets that programs exported by earlier versions name.
constexpr Target kOldTargets[] = {
    {"sparsejax_spmm_v1", SpmmHandler},
    {"sparsejax_spmm_t_v1", SpmmTHandler},
    {"sparsejax_sddmm_v1", SddmmHandler},
    {"sparsejax_spmm_backward_v1", SpmmBackwardHandler},
    {"sparsejax_conv_v1", ConvHandler},
    {"sparsejax_conv_input_grad_v1", ConvInputGradHandler},
    {"sparsejax_conv_weight_grad_v1", ConvWeightGradHandler},
    {"sparsejax_conv_backward_v1", ConvBackwardHandler},
    {"sparsejax_channel_sum_v1", ChannelSumHandler},
    {"sparsejax_channel_dot_v1", ChannelDotHandler},
    {"sparsejax_sum_pool_v1", SumPoolHandler},
    {"sparsejax_sum_unpool_v1", SumUnpoolHandler},
    {"sparsejax_max_pool_v1", MaxPoolHandler},
    {"sparsejax_max_take_v1", MaxTakeHandler},
    {"sparsejax_max_put_v1", MaxPutHandler},
    {"sparsejax_batch_norm_v1", BatchNormHandler},
    {"sparsejax_batch_norm_grad_v1", BatchNormGradHandler},
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_HANDLERS_H_
