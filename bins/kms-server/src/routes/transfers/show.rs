//! Transfers and deposits as the API returns them.

use kms_chain::follower::ExternalDeposit;
use kms_chain::transfer::{
    Party, Refusal, Transfer, TransferFailure, TransferState, Wait, WaitReason, Warning,
};
use kms_types::wire;

/// Converts a transfer to its wire form.
pub(crate) fn show(transfer: Transfer) -> wire::Transfer {
    let (usual_fee, max_fee) = (transfer.usual_fee(), transfer.max_fee());
    let party = |party: Party| wire::Party {
        account: party.account,
        username: party.username,
        address: party.address,
        since: party.since,
    };
    wire::Transfer {
        id: transfer.id,
        state: show_state(transfer.state),
        from: party(transfer.from),
        to: party(transfer.to),
        token: transfer.token,
        value: transfer.value,
        arrived: transfer.arrived,
        usual_fee,
        max_fee,
        fee: transfer.fee,
        chain_id: transfer.chain_id,
        tx_hash: transfer.tx_hash.map(hex::encode_prefixed),
        replacements_sent: transfer.replacements_sent,
        wait: transfer.wait.map(show_wait),
        cancel_requested_at: transfer.cancel_requested_at,
        block: transfer.block,
        failure: transfer.failure.map(show_failure),
        superseded_by: transfer.superseded_by.map(hex::encode_prefixed),
        warnings: transfer.warnings.into_iter().map(show_warning).collect(),
        client_ref: transfer.client_ref,
        created_at: transfer.created_at,
        expires_at: transfer.expires_at,
    }
}

/// Converts an external deposit to its wire form.
pub(crate) fn show_deposit(deposit: ExternalDeposit) -> wire::ExternalDeposit {
    wire::ExternalDeposit {
        chain_id: deposit.chain_id,
        tx_hash: deposit.tx_hash.map(hex::encode_prefixed),
        from: deposit.from,
        token: deposit.token,
        value: deposit.value,
        block: deposit.block,
        count: deposit.count,
    }
}

fn show_state(state: TransferState) -> wire::TransferState {
    match state {
        TransferState::Quoted => wire::TransferState::Quoted,
        TransferState::Signed => wire::TransferState::Signed,
        TransferState::Broadcast => wire::TransferState::Broadcast,
        TransferState::Mined => wire::TransferState::Mined,
        TransferState::Final => wire::TransferState::Final,
        TransferState::Failed => wire::TransferState::Failed,
        TransferState::Cancelled => wire::TransferState::Cancelled,
        TransferState::Expired => wire::TransferState::Expired,
    }
}

fn show_wait(wait: Wait) -> wire::Wait {
    let reason = match wait.reason {
        WaitReason::Fee => wire::WaitReason::Fee,
        WaitReason::Funds => wire::WaitReason::Funds,
        WaitReason::EarlierTransfer => wire::WaitReason::EarlierTransfer,
        WaitReason::ChainStalled => wire::WaitReason::ChainStalled,
        WaitReason::Refused(Refusal::GasLimit) => wire::WaitReason::RefusedGasLimit,
        WaitReason::Refused(Refusal::TipTooLow) => wire::WaitReason::RefusedTipTooLow,
        WaitReason::Refused(Refusal::FeeTooHigh) => wire::WaitReason::RefusedFeeTooHigh,
        WaitReason::Refused(Refusal::Other) => wire::WaitReason::RefusedOther,
    };
    wire::Wait { reason, since: wait.since }
}

fn show_failure(failure: TransferFailure) -> wire::TransferFailure {
    match failure {
        TransferFailure::Reverted => wire::TransferFailure::Reverted,
        TransferFailure::Superseded => wire::TransferFailure::Superseded,
        TransferFailure::NothingMoved => wire::TransferFailure::NothingMoved,
    }
}

fn show_warning(warning: Warning) -> wire::Warning {
    match warning {
        Warning::FirstPayment => wire::Warning::FirstPayment,
        Warning::Contract => wire::Warning::Contract,
        Warning::MostOfBalance => wire::Warning::MostOfBalance,
        Warning::NameReassigned => wire::Warning::NameReassigned,
        Warning::LooksLikeAnother => wire::Warning::LooksLikeAnother,
        Warning::FeeHigh => wire::Warning::FeeHigh,
        Warning::FeeAboveAmount => wire::Warning::FeeAboveAmount,
    }
}
